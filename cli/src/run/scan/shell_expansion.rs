//! What the shell puts in the place of `$x`, `${x:-y}` and `$(…)`.

use super::{
    names::Names,
    shell_lex::{DEPTH, Token, Word, Words},
    value::{Base, MOST, Value, product},
};

impl Words<'_> {
    /// `$x`, `${x}`, `$(…)`, `` `…` ``.
    pub(crate) fn expansion(&mut self, word: &mut Word, names: &Names) {
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
                self.parameter(&inner, word, names)
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
            ('$', '@' | '*') => {
                self.at += 2;
                names.get("@")
            }
            ('$', c) if "#?$!-".contains(c) => {
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
            _ => names.get(name),
        }
    }

    fn parameter(&self, inner: &str, word: &mut Word, names: &Names) -> Vec<Value> {
        let end = inner.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(inner.len());
        let (name, rest) = inner.split_at(end);
        let values = self.variable(name, names);
        for operator in [":-", ":=", "-", "="] {
            let Some(default) = rest.strip_prefix(operator).filter(|_| self.depth < DEPTH) else {
                continue;
            };
            let mut all = values;
            let default = Words::new(default, self.path, self.line, self.depth + 1).word(names);
            all.extend(default.values);
            all.truncate(MOST);
            if operator.ends_with('=') {
                word.assigned.push((name.to_owned(), all.clone()));
            }
            return all;
        }
        match rest {
            "%/*" | "[0]%/*" => values.iter().map(Value::parent).collect(),
            // Any element may be meant.
            rest if rest.is_empty() || rest.starts_with('[') && rest.ends_with(']') => values,
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
            // What fills its fields in is not known.
            Some("printf") => words.get(1).map(|word| word.values.clone()).unwrap_or_default(),
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
