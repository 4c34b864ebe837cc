//! A shell script's words and operators.

use std::path::Path;

use super::{
    code::Names,
    value::{Base, MOST, Value, product},
};

/// A longer word is a document.
const LONGEST: usize = 256 << 10;
/// How deeply commands may stand in words of commands.
const DEPTH: usize = 12;

/// A word or an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// `>`, `>>`, `<`, `<<<`; what follows is a file's name (or, of the last, a text).
    Redirect(&'static str),
    /// The end of a command.
    End,
    /// What follows `<<EOF`, up to that word.
    Document {
        body: String,
        is_quoted: bool,
    },
}

/// A word, with what it may come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) values: Vec<Value>,
    /// As it is written, but for quotation marks.
    pub(super) raw: String,
    /// What stands before the first `=`, where that is a name or an option: the values are of what stands behind it.
    pub(super) key: Option<String>,
    /// Whether it holds a pattern that the shell expands.
    pub(super) is_pattern: bool,
    /// Whether it began with a quotation mark.
    pub(super) is_quoted: bool,
    /// The elements of an array that is assigned.
    pub(super) items: Vec<Word>,
    /// Commands within it.
    pub(super) commands: Vec<String>,
    pub(super) line: u32,
}

/// Cuts a script into words and operators. `path` is where the script stands, `names` is what its variables stand for.
pub(super) struct Words<'a> {
    chars: Vec<char>,
    at: usize,
    line: u32,
    path: &'a Path,
    depth: usize,
    documents: Vec<(String, bool)>,
    ready: Vec<Token>,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &str, path: &'a Path, line: u32, depth: usize) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            line,
            path,
            depth,
            documents: Vec::new(),
            ready: Vec::new(),
        }
    }

    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    /// The next word or operator.
    pub(super) fn next(&mut self, names: &Names) -> Option<Token> {
        if !self.ready.is_empty() {
            return Some(self.ready.remove(0));
        }
        loop {
            let c = *self.chars.get(self.at)?;
            match c {
                '\n' => {
                    self.at += 1;
                    self.line += 1;
                    self.read_documents();
                    // A document belongs to the command that it follows.
                    self.ready.push(Token::End);
                    return Some(self.ready.remove(0));
                }
                '\\' if self.peek(1) == '\n' => {
                    self.at += 2;
                    self.line += 1;
                }
                c if c.is_whitespace() => self.at += 1,
                '#' => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                ';' | '|' | '(' | ')' => {
                    self.at += 1;
                    return Some(Token::End);
                }
                '&' if self.peek(1) == '>' => self.at += 1,
                '&' => {
                    self.at += 1;
                    return Some(Token::End);
                }
                '<' | '>' => return Some(self.redirect()),
                _ if c.is_ascii_digit() && matches!(self.peek(1), '<' | '>') => self.at += 1,
                _ => return Some(Token::Word(self.word(names))),
            }
        }
    }

    fn redirect(&mut self) -> Token {
        let is = |this: &Self, text: &str| text.chars().enumerate().all(|(at, c)| this.peek(at) == c);
        for (operator, length) in [
            ("<<<", 3),
            ("<<", 2),
            (">>", 2),
            ("<(", 1),
            (">(", 1),
            (">&", 2),
            ("<&", 2),
            (">|", 2),
            ("<>", 2),
            (">", 1),
            ("<", 1),
        ] {
            if !is(self, operator) {
                continue;
            }
            self.at += length;
            return match operator {
                "<<<" => Token::Redirect("<<<"),
                "<<" => {
                    self.document();
                    // Only a mark: its text follows at the line's end.
                    Token::Redirect("<<")
                }
                ">>" | "<>" => Token::Redirect(">>"),
                "<(" | ">(" => Token::End,
                ">&" | "<&" => {
                    while self.peek(0).is_ascii_digit() || self.peek(0) == '-' {
                        self.at += 1;
                    }
                    Token::Redirect("<<")
                }
                ">" | ">|" => Token::Redirect(">"),
                _ => Token::Redirect("<"),
            };
        }
        self.at += 1;
        Token::End
    }

    /// Notes that a here-document begins at the end of this line.
    fn document(&mut self) {
        while matches!(self.peek(0), '-' | ' ' | '\t') {
            self.at += 1;
        }
        let quote = self.peek(0);
        let is_quoted = matches!(quote, '\'' | '"' | '\\');
        let mut word = String::new();
        while self.at < self.chars.len() {
            let c = self.peek(0);
            if c == '_' || c.is_alphanumeric() || c == '-' {
                word.push(c);
            } else if !matches!(c, '\'' | '"' | '\\') {
                break;
            }
            self.at += 1;
        }
        if !word.is_empty() {
            self.documents.push((word, is_quoted));
        }
    }

    fn read_documents(&mut self) {
        for (word, is_quoted) in std::mem::take(&mut self.documents) {
            let mut body = String::new();
            while self.at < self.chars.len() {
                let start = self.at;
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.at += 1;
                }
                let line: String = self.chars[start..self.at].iter().collect();
                self.at += 1;
                self.line += 1;
                if line.trim_start_matches('\t') == word {
                    break;
                }
                if body.len() < LONGEST {
                    body.push_str(&line);
                    body.push('\n');
                }
            }
            self.ready.push(Token::Document { body, is_quoted });
        }
    }

    fn word(&mut self, names: &Names) -> Word {
        let mut word = Word {
            values: vec![Value::text("")],
            is_quoted: matches!(self.peek(0), '"' | '\''),
            line: self.line,
            ..Word::default()
        };
        while self.at < self.chars.len() {
            let c = self.peek(0);
            match c {
                '(' if word.key.is_some() && word.raw.ends_with('=') => {
                    self.at += 1;
                    self.array(&mut word, names);
                    break;
                }
                c if c.is_whitespace() || ";|&()<>".contains(c) => break,
                '\'' => {
                    self.at += 1;
                    let text = self.until('\'');
                    word.add(&text);
                }
                '"' => {
                    self.at += 1;
                    self.in_quotes(&mut word, names);
                }
                '\\' => {
                    self.at += 1;
                    if self.peek(0) == '\n' {
                        self.line += 1;
                    } else if self.at < self.chars.len() {
                        word.add(&self.peek(0).to_string());
                    }
                    self.at += 1;
                }
                '$' | '`' => self.expansion(&mut word, names),
                '=' if word.key.is_none() && is_key(&word.raw) => {
                    word.key = Some(word.raw.clone());
                    word.raw.push('=');
                    word.values = vec![Value::text("")];
                    self.at += 1;
                }
                c => {
                    word.is_pattern |= matches!(c, '*' | '?' | '[' | '{');
                    word.add(&c.to_string());
                    self.at += 1;
                }
            }
            if word.raw.len() > LONGEST {
                break;
            }
        }
        word
    }

    /// `NAME=(a b …)`.
    fn array(&mut self, word: &mut Word, names: &Names) {
        while self.at < self.chars.len() && word.items.len() < 1_000 {
            let before = self.at;
            match self.peek(0) {
                ')' => {
                    self.at += 1;
                    break;
                }
                '\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                '#' => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                c if c.is_whitespace() => self.at += 1,
                _ => {
                    let item = self.word(names);
                    word.items.push(item);
                }
            }
            // What is no word is passed over.
            self.at = self.at.max(before + 1);
        }
        word.values = word.items.iter().flat_map(|item| item.values.clone()).take(MOST).collect();
    }

    fn until(&mut self, end: char) -> String {
        let start = self.at;
        while self.at < self.chars.len() && self.peek(0) != end {
            if self.peek(0) == '\n' {
                self.line += 1;
            }
            self.at += 1;
        }
        let text = self.chars[start..self.at].iter().collect();
        self.at += 1;
        text
    }

    fn in_quotes(&mut self, word: &mut Word, names: &Names) {
        while self.at < self.chars.len() {
            match self.peek(0) {
                '"' => {
                    self.at += 1;
                    return;
                }
                '\\' => {
                    word.add(&self.peek(1).to_string());
                    self.at += 2;
                }
                '$' | '`' => self.expansion(word, names),
                c => {
                    if c == '\n' {
                        self.line += 1;
                    }
                    word.add(&c.to_string());
                    self.at += 1;
                }
            }
        }
    }

    /// `$x`, `${x}`, `$(…)`, `` `…` ``.
    fn expansion(&mut self, word: &mut Word, names: &Names) {
        let values = match (self.peek(0), self.peek(1)) {
            ('`', _) => {
                self.at += 1;
                let inner = self.until('`');
                self.substitution(&inner, word, names)
            }
            ('$', '(') => {
                self.at += 2;
                let inner = self.nested('(', ')');
                // Arithmetic.
                if inner.starts_with('(') {
                    Vec::new()
                } else {
                    self.substitution(&inner, word, names)
                }
            }
            ('$', '{') => {
                self.at += 2;
                let inner = self.nested('{', '}');
                self.parameter(&inner, names)
            }
            ('$', c) if c == '_' || c.is_alphanumeric() => {
                self.at += 1;
                let start = self.at;
                if c.is_ascii_digit() {
                    self.at += 1;
                }
                while !c.is_ascii_digit() && (self.peek(0) == '_' || self.peek(0).is_alphanumeric()) {
                    self.at += 1;
                }
                let name: String = self.chars[start..self.at].iter().collect();
                self.variable(&name, names)
            }
            ('$', c) if "@*#?$!-".contains(c) => {
                self.at += 2;
                Vec::new()
            }
            (c, _) => {
                word.add(&c.to_string());
                self.at += 1;
                return;
            }
        };
        word.raw.push('$');
        let values = if values.is_empty() { vec![Value::any()] } else { values };
        word.values = product(&word.values, &values, |a, b| {
            if a.parts.is_empty() && a.base == Base::Free {
                b.clone()
            } else {
                a.concat(b)
            }
        });
    }

    fn nested(&mut self, open: char, close: char) -> String {
        let start = self.at;
        let mut depth = 0;
        while self.at < self.chars.len() {
            let c = self.peek(0);
            if c == '\'' && open == '(' {
                self.at += 1;
                self.until('\'');
                continue;
            }
            if c == open {
                depth += 1;
            } else if c == close {
                if depth == 0 {
                    break;
                }
                depth -= 1;
            } else if c == '\n' {
                self.line += 1;
            }
            self.at += 1;
        }
        let text = self.chars[start..self.at.min(self.chars.len())].iter().collect();
        self.at += 1;
        text
    }

    fn file(&self) -> Value {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Value::at(self.path.parent().unwrap_or(self.path)).join(&Value::text(name))
    }

    fn variable(&self, name: &str, names: &Names) -> Vec<Value> {
        match name {
            "0" | "BASH_SOURCE" | "ZSH_SCRIPT" => vec![self.file()],
            "PWD" => vec![Value::current()],
            _ => names.get(name).to_vec(),
        }
    }

    fn parameter(&self, inner: &str, names: &Names) -> Vec<Value> {
        let end = inner.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(inner.len());
        let (name, rest) = inner.split_at(end);
        let values = self.variable(name, names);
        if let Some(default) = rest
            .strip_prefix(":-")
            .or_else(|| rest.strip_prefix(":="))
            .or_else(|| rest.strip_prefix('-'))
        {
            let mut all = values;
            let text = default.trim_matches(['"', '\'']);
            if !text.contains('$') && all.len() < MOST {
                all.push(Value::text(text));
            }
            return all;
        }
        match rest {
            "" | "[0]" | "[@]" => values,
            "%/*" | "[0]%/*" => values.iter().map(Value::parent).collect(),
            _ => Vec::new(),
        }
    }

    /// What a command in a word prints, where that is a name.
    fn substitution(&self, inner: &str, word: &mut Word, names: &Names) -> Vec<Value> {
        let mut words = Vec::new();
        if self.depth < DEPTH {
            let mut tokens = Words::new(inner, self.path, self.line, self.depth + 1);
            while let Some(token) = tokens.next(names) {
                match token {
                    Token::Word(word) => words.push(word),
                    Token::End => words.push(Word {
                        raw: ";".to_owned(),
                        ..Word::default()
                    }),
                    Token::Redirect(_) | Token::Document { .. } => {}
                }
            }
        }
        let last = |words: &[Word]| {
            words
                .iter()
                .rfind(|word| word.raw != ";" && !word.raw.starts_with('-'))
                .map(|word| word.values.clone())
                .unwrap_or_default()
        };
        match words.first().map(|word| word.raw.as_str()) {
            Some("dirname") => last(&words).iter().map(Value::parent).collect(),
            Some("readlink" | "realpath" | "greadlink") => last(&words),
            Some("pwd") => vec![Value::current()],
            Some("cd") if words.last().is_some_and(|word| matches!(word.raw.as_str(), "pwd" | "-P")) => {
                let target = words.iter().skip(1).find(|word| !word.raw.starts_with('-'));
                target.map(|word| word.values.clone()).unwrap_or_default()
            }
            _ => {
                if self.depth < DEPTH {
                    word.commands.push(inner.to_owned());
                }
                Vec::new()
            }
        }
    }
}

/// `NAME` and `--option`.
fn is_key(text: &str) -> bool {
    let name = text.trim_start_matches('-');
    let begins = name.chars().next().is_some_and(|c| c == '_' || c.is_alphabetic());
    begins && name.chars().all(|c| c == '_' || c == '-' || c == '+' || c.is_alphanumeric())
}

impl Word {
    fn add(&mut self, text: &str) {
        self.raw.push_str(text);
        self.values = self.values.iter().map(|value| value.concat(&Value::text(text))).collect();
    }
}
