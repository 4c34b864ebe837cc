//! A shell script's words and operators.

use std::path::Path;

use super::{
    names::Names,
    value::{MOST, Part, Value},
};

/// A longer word is a document.
const LONGEST: usize = 256 << 10;
/// How deeply commands may stand in words of commands.
pub(crate) const DEPTH: usize = 12;

/// A word or an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
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
pub(crate) struct Word {
    pub(crate) values: Vec<Value>,
    /// As it is written, but for quotation marks.
    pub(crate) raw: String,
    /// What stands before the first `=`, where that is a name or an option: the values are of what stands behind it.
    pub(crate) key: Option<String>,
    /// Whether it holds a pattern that the shell expands.
    pub(crate) is_pattern: bool,
    /// Whether it began with a quotation mark.
    pub(crate) is_quoted: bool,
    /// The elements of an array that is assigned.
    pub(crate) items: Vec<Word>,
    /// Variables that it gives a value to (`${x:=y}`).
    pub(crate) assigned: Vec<(String, Vec<Value>)>,
    /// Commands within it.
    pub(crate) commands: Vec<String>,
    pub(crate) line: u32,
}

/// Cuts a script into words and operators. `path` is where the script stands, `names` is what its variables stand for.
pub(crate) struct Words<'a> {
    pub(crate) chars: Vec<char>,
    pub(crate) at: usize,
    pub(crate) line: u32,
    pub(crate) path: &'a Path,
    pub(crate) depth: usize,
    documents: Vec<(String, bool)>,
    ready: Vec<Token>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &str, path: &'a Path, line: u32, depth: usize) -> Self {
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

    pub(crate) fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    /// The next word or operator.
    pub(crate) fn next(&mut self, names: &Names) -> Option<Token> {
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

    pub(crate) fn word(&mut self, names: &Names) -> Word {
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
                    word.items.push(item.element());
                }
            }
            // What is not a word is passed over.
            self.at = self.at.max(before + 1);
        }
        word.values = word.items.iter().flat_map(|item| item.values.clone()).take(MOST).collect();
    }

    pub(crate) fn until(&mut self, end: char) -> String {
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
}

/// `NAME` and `--option`.
fn is_key(text: &str) -> bool {
    let name = text.trim_start_matches('-');
    let begins = name.chars().next().is_some_and(|c| c == '_' || c.is_alphabetic());
    begins && name.chars().all(|c| c == '_' || c == '-' || c == '+' || c.is_alphanumeric())
}

impl Word {
    /// An element of an array, without its key: `x` of `[k]=x`.
    fn element(mut self) -> Self {
        if let Some(at) = self.raw.find("]=").filter(|_| self.raw.starts_with('[')) {
            let skip = |value: &Value| match value.parts.first() {
                Some(Part::Text(text)) => {
                    let rest = text.get(at + 2..).unwrap_or_default().to_owned();
                    Value::of(
                        value.base.clone(),
                        std::iter::once(Part::Text(rest)).chain(value.parts[1..].iter().cloned()).collect(),
                    )
                }
                _ => value.clone(),
            };
            self.values = self.values.iter().map(skip).collect();
        }
        self
    }

    /// The words that the shell makes of it: what is not in quotation marks is cut where a variable's value has spaces.
    pub(crate) fn cut(&self) -> Vec<Value> {
        if self.is_quoted || !self.raw.contains('$') {
            return self.values.clone();
        }
        let cut = |value: &Value| match value.known() {
            Some(text) if text.contains(char::is_whitespace) => {
                let words = text
                    .split_whitespace()
                    .map(|word| Value::of(value.base.clone(), vec![Part::Text(word.to_owned())]));
                words.collect::<Vec<_>>()
            }
            _ => vec![value.clone()],
        };
        self.values.iter().flat_map(cut).collect()
    }

    pub(crate) fn add(&mut self, text: &str) {
        self.raw.push_str(text);
        self.values = self.values.iter().map(|value| value.concat(&Value::text(text))).collect();
    }
}
