//! Source text to tokens: names, strings with their interpolated parts, and symbols; comments fall away.
//!
//! One reader serves all languages: it needs no grammar, only where strings and comments begin and end. It never fails: what it cannot
//! make sense of becomes symbols, which no later step takes for a file's name.

use super::language::{Language, Syntax};

/// A longer string is a document, and no name.
pub(crate) const LONGEST_STRING: usize = 64 << 10;
/// How deeply interpolated parts may hold strings with such parts.
const DEPTH: usize = 3;

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// The line that it begins on, from 1.
    pub(crate) line: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name, without sigils; or a number.
    Word(String),
    /// A string.
    Text(Vec<Piece>),
    /// Anything else, one character; several operators share one: `+` joins strings, `.` names a member, `|` offers an alternative, `≡`
    /// compares, `=` assigns, `:` gives a value to a key.
    Symbol(char),
    /// The end of a line.
    Line,
}

/// A part of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Plain(String),
    /// An interpolated expression.
    Hole(Vec<Token>),
}

/// Cuts a text into tokens.
pub(crate) fn lex(text: &str, language: Language) -> Vec<Token> {
    Lexer::new(text, language, DEPTH).run()
}

pub(crate) struct Lexer {
    pub(crate) chars: Vec<char>,
    pub(crate) at: usize,
    pub(crate) line: u32,
    pub(crate) language: Language,
    pub(crate) syntax: Syntax,
    pub(crate) tokens: Vec<Token>,
    /// Here-documents that begin behind this line's end: their closing words, and whether they interpolate.
    pub(crate) awaited: Vec<String>,
    pub(crate) depth: usize,
}

impl Lexer {
    pub(crate) fn new(text: &str, language: Language, depth: usize) -> Self {
        let mut chars: Vec<char> = text.chars().collect();
        if language == Language::Php {
            // What stands outside of `<?php … ?>` is printed as it is.
            blank_outside_of_php(&mut chars);
        }
        Self {
            chars,
            at: 0,
            line: 1,
            language,
            syntax: language.syntax(),
            tokens: Vec::new(),
            awaited: Vec::new(),
            depth,
        }
    }

    pub(crate) fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    pub(crate) fn starts(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(at, c)| self.peek(at) == c)
    }

    pub(crate) fn push(&mut self, kind: Kind, line: u32) {
        self.tokens.push(Token { kind, line });
    }

    pub(crate) fn run(mut self) -> Vec<Token> {
        while self.at < self.chars.len() {
            let before = self.at;
            self.step();
            // Whatever a step made of it, it goes on.
            self.at = self.at.max(before + 1);
        }
        self.tokens
    }

    pub(crate) fn step(&mut self) {
        let c = self.peek(0);
        if c == '\n' {
            self.push(Kind::Line, self.line);
            self.line += 1;
            self.at += 1;
            self.here_documents();
        } else if c == '\\' && self.peek(1) == '\n' {
            self.line += 1;
            self.at += 2;
        } else if c.is_whitespace() {
            self.at += 1;
        } else if self.comment() || self.string() {
        } else if c == '_' || c.is_alphabetic() || (self.syntax.sigils.contains(c) && is_name(self.peek(1))) {
            self.word();
        } else if c.is_ascii_digit() {
            let start = self.at;
            while is_name(self.peek(0)) || (self.peek(0) == '.' && self.peek(1).is_ascii_digit()) {
                self.at += 1;
            }
            let number = self.chars[start..self.at].iter().collect();
            self.push(Kind::Word(number), self.line);
        } else {
            self.symbol();
        }
    }

    /// Passes over a comment.
    pub(crate) fn comment(&mut self) -> bool {
        let begins_line = self.at == 0 || self.chars[self.at - 1] == '\n';
        let to_line_end = (self.syntax.hash_comments && self.peek(0) == '#') || (self.syntax.slash_comments && self.starts("//"));
        if to_line_end {
            // Perl's `$#array` is no comment.
            if self.language == Language::Perl && self.at > 0 && self.chars[self.at - 1] == '$' {
                return false;
            }
            while self.at < self.chars.len() && self.peek(0) != '\n' {
                self.at += 1;
            }
            return true;
        }
        let end = match self.language {
            Language::JavaScript | Language::Php if self.starts("/*") => "*/",
            Language::Julia if self.starts("#=") => "=#",
            Language::Ruby if begins_line && self.starts("=begin") => "\n=end",
            Language::Perl if begins_line && self.peek(0) == '=' && self.peek(1).is_alphabetic() => "\n=cut",
            _ => return false,
        };
        self.skip_to(end);
        true
    }

    pub(crate) fn skip_to(&mut self, end: &str) {
        while self.at < self.chars.len() && !self.starts(end) {
            if self.peek(0) == '\n' {
                self.line += 1;
            }
            self.at += 1;
        }
        self.at += end.chars().count();
    }

    pub(crate) fn word(&mut self) {
        let line = self.line;
        let has_sigil = self.syntax.sigils.contains(self.peek(0));
        if has_sigil {
            self.at += 1;
            while self.syntax.sigils.contains(self.peek(0)) {
                self.at += 1;
            }
        }
        let start = self.at;
        while is_name(self.peek(0)) {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        if matches!(word.as_str(), "or" | "and" | "else") && self.language != Language::JavaScript {
            return self.push(Kind::Symbol('|'), line);
        }
        if !has_sigil && self.quote_operator(&word, line) {
            return;
        }
        self.push(Kind::Word(word), line);
    }

    /// Perl's `q(…)`, `qq{…}`, `qw/…/`, and the regular expressions of `m`, `qr`, `s`, `tr`, `y`; Ruby's `%w[…]` comes by way of symbols.
    pub(crate) fn quote_operator(&mut self, word: &str, line: u32) -> bool {
        if self.language != Language::Perl || !matches!(word, "q" | "qq" | "qw" | "m" | "qr" | "s" | "tr" | "y") {
            return false;
        }
        let open = self.peek(0);
        let is_key = open == '=' || open == ',' || open == ';' || open == ')' || open.is_whitespace();
        if open == '\0' || is_key || is_name(open) || self.follows_arrow() {
            return false;
        }
        let body = self.delimited();
        match word {
            "q" | "qq" => self.push(Kind::Text(vec![Piece::Plain(body)]), line),
            "qw" => self.words(&body, line),
            "s" | "tr" | "y" => {
                // The replacement.
                if closing(open) == open {
                    self.at = self.at.saturating_sub(1);
                }
                self.delimited();
            }
            _ => {}
        }
        true
    }

    pub(crate) fn follows_arrow(&self) -> bool {
        matches!(
            self.tokens.last(),
            Some(Token {
                kind: Kind::Symbol('.' | '{'),
                ..
            })
        )
    }

    pub(crate) fn words(&mut self, body: &str, line: u32) {
        self.push(Kind::Symbol('('), line);
        for word in body.split_whitespace() {
            self.push(Kind::Text(vec![Piece::Plain(word.to_owned())]), line);
            self.push(Kind::Symbol(','), line);
        }
        self.push(Kind::Symbol(')'), line);
    }

    /// What stands between a delimiter here and its counterpart.
    pub(crate) fn delimited(&mut self) -> String {
        let open = self.peek(0);
        let close = closing(open);
        let mut depth = 0_usize;
        let mut body = String::new();
        self.at += 1;
        while self.at < self.chars.len() && body.len() < LONGEST_STRING {
            let c = self.peek(0);
            self.at += 1;
            if c == '\n' {
                self.line += 1;
            }
            if c == '\\' {
                body.push(self.peek(0));
                self.at += 1;
                continue;
            }
            if c == close && depth == 0 {
                break;
            }
            if close != open {
                depth = if c == open {
                    depth + 1
                } else if c == close {
                    depth - 1
                } else {
                    depth
                };
            }
            body.push(c);
        }
        body
    }
}

fn blank_outside_of_php(chars: &mut [char]) {
    let mut inside = false;
    let mut at = 0;
    while at < chars.len() {
        if !inside && chars[at..].starts_with(&['<', '?']) {
            inside = true;
            let length = if chars[at..].starts_with(&['<', '?', 'p', 'h', 'p']) {
                5
            } else {
                3
            };
            chars[at..].iter_mut().take(length).for_each(|c| *c = ' ');
            at += length;
        } else if inside && chars[at..].starts_with(&['?', '>']) {
            inside = false;
            chars[at] = ';';
            chars[at + 1] = ' ';
            at += 2;
        } else {
            if !inside && chars[at] != '\n' {
                chars[at] = ' ';
            }
            at += 1;
        }
    }
}

pub(crate) const fn closing(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        '{' => '}',
        '<' => '>',
        c => c,
    }
}

pub(crate) fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens as text: strings in quotation marks, with `*` for each interpolated part.
    fn shown(text: &str, language: Language) -> String {
        let show = |token: Token| match token.kind {
            Kind::Word(word) => word,
            Kind::Text(pieces) => {
                let text: String = pieces
                    .into_iter()
                    .map(|piece| match piece {
                        Piece::Plain(text) => text,
                        Piece::Hole(_) => "*".to_owned(),
                    })
                    .collect();
                format!("'{text}'")
            }
            Kind::Symbol(c) => c.to_string(),
            Kind::Line => "⏎".to_owned(),
        };
        lex(text, language).into_iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn strings_and_comments_are_told_apart_in_each_language() {
        use Language::*;
        for (language, text, expected) in [
            (
                Python,
                "open('a b') # 'no'\nx = f\"d/{y:02d}.csv\"",
                "open ( 'a b' ) ⏎ x = 'd/*.csv'",
            ),
            (Python, "'''doc \"x\"\n''' + r'a\\b' + rb'c'", "'doc \"x\"\n' + 'a\\b' + 'c'"),
            (Python, "it's = 1\nopen('x')", "it 0 s = 1 ⏎ open ( 'x' )"),
            (Python, "f'{{x}} {d[\"a\"]}'", "'{x} *'"),
            (JavaScript, "a('x') // 'no'\n/* 'no' */ `t/${n}.html`", "a ( 'x' ) ⏎ 't/*.html'"),
            (
                JavaScript,
                "s.replace(/'/g, '') ; b = c / d",
                "s . replace ( 0 g , '' ) ; b = c / d",
            ),
            (
                Ruby,
                "puts \"a/#{b}.txt\" # 'no'\n%w[a b].each",
                "puts 'a/*.txt' ⏎ ( 'a' , 'b' , ) . each",
            ),
            (Ruby, "x = <<~EOS\n  it's 'no'\nEOS\ny 'yes'", "x = '' ⏎ y 'yes'"),
            (
                Perl,
                "open(my $f, '<', \"d/$x.txt\") or die; # 'no'",
                "open ( my f , '<' , 'd/*.txt' ) | die ;",
            ),
            (Perl, "my $p = $d . '/x'; s/'/x/; qw(a b)", "my p = d + '/x' ; ; ( 'a' , 'b' , )"),
            (Perl, "=pod\n\nit's\n\n=cut\nrequire 'x.pl'", "⏎ require 'x.pl'"),
            (
                Php,
                "it's <b>\n<?php require __DIR__ . '/a.php'; ?> it's",
                "⏎ require __DIR__ + '/a.php' ; ;",
            ),
            (R, "x <- read.csv('a.csv') # 'no'", "x = read . csv ( 'a.csv' )"),
            (Julia, "include(\"a.jl\"); x = \"d/$(n).csv\"", "include ( 'a.jl' ) ; x = 'd/*.csv'"),
        ] {
            assert_eq!(shown(text, language), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_stops_the_reader(text in ".{0,300}", which in 0_usize..7) {
            use Language::*;
            let language = [Python, JavaScript, Ruby, Perl, Php, R, Julia][which];
            lex(&text, language);
        }
    }
}
