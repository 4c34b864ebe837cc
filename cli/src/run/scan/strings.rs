//! Strings: where they begin and end, and which parts of them are interpolated.

use super::{
    language::{Holes, Language},
    lex::{Kind, LONGEST_STRING, Lexer, Piece, Token, closing, is_name},
};

/// A longer interpolated part is none.
const LONGEST_HOLE: usize = 1_000;

impl Lexer {
    pub(crate) fn here_document_begins(&mut self) -> bool {
        if !self.syntax.here_documents || !self.starts("<<") {
            return false;
        }
        let mut at = self.at + 2;
        if self.language == Language::Php {
            if self.chars.get(at) != Some(&'<') {
                return false;
            }
            at += 1;
        }
        while matches!(self.chars.get(at), Some('~' | '-')) || (self.language == Language::Php && self.chars.get(at) == Some(&' ')) {
            at += 1;
        }
        let quoted = matches!(self.chars.get(at), Some('"' | '\''));
        let start = at + usize::from(quoted);
        let mut end = start;
        while self.chars.get(end).is_some_and(|c| is_name(*c)) {
            end += 1;
        }
        let word: String = self.chars[start..end.min(self.chars.len())].iter().collect();
        // `a << b` appends in Ruby.
        let is_word = !word.is_empty() && (quoted || word.chars().all(|c| c.is_uppercase() || c == '_' || c.is_ascii_digit()));
        if !is_word {
            return false;
        }
        self.at = end + usize::from(quoted);
        self.awaited.push(word);
        self.push(Kind::Text(Vec::new()), self.line);
        true
    }

    /// Passes over the here-documents that begin on this line.
    pub(crate) fn here_documents(&mut self) {
        for word in std::mem::take(&mut self.awaited) {
            while self.at < self.chars.len() {
                let start = self.at;
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.at += 1;
                }
                let line: String = self.chars[start..self.at].iter().collect();
                self.at += 1;
                self.line += 1;
                if line.trim().trim_end_matches([';', ',', ')']) == word {
                    break;
                }
            }
        }
    }

    /// Reads a string, with its prefix.
    pub(crate) fn string(&mut self) -> bool {
        let mut prefix = 0;
        if self.language == Language::Python {
            while prefix < 3 && "rRbBuUfFtT".contains(self.peek(prefix)) {
                prefix += 1;
            }
        } else if matches!(self.language, Language::R | Language::Julia) && matches!(self.peek(0), 'r' | 'R' | 'b' | 'v') {
            prefix = 1;
        }
        let quote = self.peek(prefix);
        let is_quote = matches!(quote, '"' | '\'') || (quote == '`' && !matches!(self.language, Language::Python | Language::R));
        if !is_quote || (prefix > 0 && self.at > 0 && is_name(self.chars[self.at - 1])) {
            return false;
        }
        // `'a'` transposes in Julia, and is a package's old separator in Perl.
        if quote == '\'' && self.language == Language::Julia {
            return false;
        }
        let marks: String = self.chars[self.at..self.at + prefix]
            .iter()
            .collect::<String>()
            .to_ascii_lowercase();
        let triple: String = [quote; 3].iter().collect();
        let is_triple = self.syntax.triple_quotes && self.chars[self.at + prefix..].starts_with(&[quote; 3]);
        let close = if is_triple { triple } else { quote.to_string() };
        let multiline = is_triple || self.syntax.multiline || quote == '`';
        let holes = match (self.syntax.holes, quote) {
            (Holes::Braces, _) if marks.contains('f') => Holes::Braces,
            (Holes::DollarBrace, '`') => Holes::DollarBrace,
            (Holes::HashBrace | Holes::Dollar, '"' | '`') => self.syntax.holes,
            _ => Holes::None,
        };
        let (at, line) = (self.at, self.line);
        self.at += prefix + close.chars().count();
        match self.body(&close, multiline, marks.contains('r'), holes) {
            Some(pieces) => self.push(Kind::Text(pieces), line),
            // It is not closed: a quotation mark that is none.
            None => {
                (self.at, self.line) = (at + prefix + 1, line);
                self.push(Kind::Symbol('0'), line);
            }
        }
        true
    }

    pub(crate) fn body(&mut self, close: &str, multiline: bool, raw: bool, holes: Holes) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let start = self.at;
        loop {
            if self.at >= self.chars.len() || self.at - start > LONGEST_STRING {
                return None;
            }
            if self.starts(close) {
                self.at += close.chars().count();
                break;
            }
            match self.peek(0) {
                '\n' if !multiline => return None,
                '\\' if !raw => {
                    let escaped = self.peek(1);
                    self.at += 2;
                    match escaped {
                        'n' => plain.push('\n'),
                        't' => plain.push('\t'),
                        '\n' => self.line += 1,
                        c => plain.push(c),
                    }
                }
                c => match self.hole(holes) {
                    Some(tokens) => {
                        if !plain.is_empty() {
                            pieces.push(Piece::Plain(std::mem::take(&mut plain)));
                        }
                        pieces.push(Piece::Hole(tokens));
                    }
                    None => {
                        if c == '\n' {
                            self.line += 1;
                        }
                        // `{{` stands for a brace.
                        if holes == Holes::Braces && (self.starts("{{") || self.starts("}}")) {
                            self.at += 1;
                        }
                        plain.push(c);
                        self.at += 1;
                    }
                },
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Some(pieces)
    }

    /// An interpolated part, if one begins here.
    pub(crate) fn hole(&mut self, holes: Holes) -> Option<Vec<Token>> {
        let c = self.peek(0);
        let (skip, end) = match holes {
            Holes::Braces if c == '{' && self.peek(1) != '{' => (1, Some('}')),
            Holes::DollarBrace if self.starts("${") => (2, Some('}')),
            Holes::HashBrace if self.starts("#{") => (2, Some('}')),
            Holes::Dollar if self.language == Language::Php && self.starts("{$") => (2, Some('}')),
            Holes::Dollar if self.starts("${") => (2, Some('}')),
            Holes::Dollar if self.language == Language::Julia && self.starts("$(") => (2, Some(')')),
            Holes::Dollar if c == '$' && (is_name(self.peek(1)) || self.peek(1) == '$') => (1, None),
            _ => return None,
        };
        let start = self.at + skip;
        let mut end_at = start;
        if let Some(end) = end {
            let open = if end == ')' { '(' } else { '{' };
            let mut depth = 0;
            loop {
                match self.chars.get(end_at) {
                    None | Some('\n') => return None,
                    _ if end_at - start > LONGEST_HOLE => return None,
                    Some(c) if *c == open => depth += 1,
                    Some(c) if *c == end && depth == 0 => break,
                    Some(c) if *c == end => depth -= 1,
                    _ => {}
                }
                end_at += 1;
            }
            self.at = end_at + 1;
        } else {
            let is_perl = self.language == Language::Perl;
            loop {
                match self.chars.get(end_at) {
                    Some(c) if is_name(*c) => end_at += 1,
                    Some(':')
                        if is_perl
                            && self.chars[end_at..].starts_with(&[':', ':'])
                            && self.chars.get(end_at + 2).is_some_and(|c| is_name(*c)) =>
                    {
                        end_at += 2;
                    }
                    _ => break,
                }
            }
            // `$h{x}`, `$h->{x}` and `$a[0]` are one part.
            let mut rest = end_at;
            if self.chars[rest..].starts_with(&['-', '>']) {
                rest += 2;
            }
            if let Some(open @ ('{' | '[')) = self.chars.get(rest) {
                let close = closing(*open);
                if let Some(length) = self.chars[rest..].iter().take(80).position(|c| *c == close) {
                    self.at = rest + length + 1;
                    return Some(Vec::new());
                }
            }
            self.at = end_at;
        }
        let source: String = self.chars[start..end_at].iter().collect();
        // Python's `{x:02d}` and `{x!r}`.
        let source = if holes == Holes::Braces {
            source.split([':', '!']).next().unwrap_or_default()
        } else {
            &source
        };
        if self.depth == 0 {
            return Some(Vec::new());
        }
        let mut inner = Self::new(source, self.language, self.depth - 1);
        if self.language == Language::Php {
            inner.chars = source.chars().collect();
        }
        let mut tokens = inner.run();
        tokens.iter_mut().for_each(|token| token.line = self.line);
        Some(tokens)
    }
}
