//! Operators, and what begins like one.

use super::{
    language::Language,
    lex::{Kind, Lexer, Piece},
};

impl Lexer {
    pub(crate) fn symbol(&mut self) {
        let line = self.line;
        if self.here_document_begins() || self.regular_expression() {
            return;
        }
        if self.language == Language::Ruby
            && self.peek(0) == '%'
            && matches!(self.peek(1), 'w' | 'W' | 'i' | 'q' | 'Q')
            && "([{<|/!".contains(self.peek(2))
        {
            let is_list = matches!(self.peek(1), 'w' | 'W' | 'i');
            self.at += 2;
            let body = self.delimited();
            if is_list {
                self.words(&body, line);
            } else {
                self.push(Kind::Text(vec![Piece::Plain(body)]), line);
            }
            return;
        }
        const OPERATORS: [(&str, char); 26] = [
            ("===", '≡'),
            ("!==", '≡'),
            ("<=>", '≡'),
            ("==", '≡'),
            ("!=", '≡'),
            ("=~", '≡'),
            ("!~", '≡'),
            (">=", '≡'),
            ("<=", '≡'),
            ("//=", '='),
            ("||=", '='),
            ("??=", '='),
            ("|>", ';'),
            ("||", '|'),
            ("&&", '|'),
            ("??", '|'),
            ("=>", ':'),
            ("->", '.'),
            ("::", '.'),
            ("?.", '.'),
            ("+=", '='),
            (".=", '='),
            (":=", '='),
            ("<-", '='),
            ("...", ','),
            ("++", '0'),
        ];
        for (operator, symbol) in OPERATORS {
            let applies = match operator {
                "<-" => self.language == Language::R,
                ".=" => self.syntax.dot_joins,
                "//=" => self.language == Language::Perl,
                "|>" => matches!(self.language, Language::R | Language::Julia),
                _ => true,
            };
            if applies && self.starts(operator) {
                self.at += operator.chars().count();
                return self.push(Kind::Symbol(symbol), line);
            }
        }
        let c = match self.peek(0) {
            '.' if self.syntax.dot_joins => '+',
            '*' if self.language == Language::Julia => '+',
            '/' if self.language == Language::Perl && self.peek(1) == '/' => {
                self.at += 1;
                '|'
            }
            c => c,
        };
        self.at += 1;
        self.push(Kind::Symbol(c), line);
    }

    /// A `/` where no value stands before it begins a regular expression, which may hold quotation marks.
    pub(crate) fn regular_expression(&mut self) -> bool {
        let has_them = matches!(self.language, Language::JavaScript | Language::Ruby | Language::Perl);
        if self.peek(0) != '/' || !has_them {
            return false;
        }
        let begins = match self.tokens.last().map(|token| &token.kind) {
            None | Some(Kind::Line) => true,
            Some(Kind::Symbol(c)) => "(,=:[!|?{};≡&".contains(*c),
            Some(Kind::Word(word)) => matches!(
                word.as_str(),
                "return" | "if" | "unless" | "split" | "grep" | "and" | "or" | "not" | "when" | "typeof"
            ),
            Some(Kind::Text(_)) => false,
        };
        if !begins {
            return false;
        }
        let mut at = self.at + 1;
        let mut in_class = false;
        while let Some(c) = self.chars.get(at) {
            match c {
                '\n' => return false,
                '\\' => at += 1,
                '[' => in_class = true,
                ']' => in_class = false,
                '/' if !in_class => {
                    self.at = at + 1;
                    self.push(Kind::Symbol('0'), self.line);
                    return true;
                }
                _ => {}
            }
            at += 1;
        }
        false
    }
}
