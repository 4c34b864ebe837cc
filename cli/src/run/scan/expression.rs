//! Expressions: what they may come to as the name of a file, and which files they mention on the way.

use super::{
    code::Reader,
    eval::Eval,
    language::Language,
    lex::Piece,
    mention::{Mention, MentionKind},
    nodes::{Node, nest, split},
    roles::Role,
    value::{Base, MOST, Value},
};

/// Expressions that stand deeper are not looked at: a stack is finite.
const DEEPEST: usize = 120;

impl Reader<'_> {
    /// Reads expressions that stand side by side, and takes what they come to for mentions.
    pub(crate) fn sequence_emitted(&mut self, nodes: &[Node]) {
        for eval in self.sequence(nodes) {
            self.emit(&eval);
        }
    }

    /// Reads expressions that stand side by side.
    pub(crate) fn sequence(&mut self, nodes: &[Node]) -> Vec<Eval> {
        let mut evals = Vec::new();
        let mut at = 0;
        while at < nodes.len() {
            let before = at;
            if nodes[at].word() == Some("for") {
                self.follow_loop(&nodes[at + 1..]);
            }
            let (eval, next) = self.chain(nodes, at);
            if !eval.values.is_empty() {
                evals.push(eval);
            }
            at = next.max(before + 1);
        }
        evals
    }

    /// `for a in b`, also within a list; `for (const a of b)`.
    fn follow_loop(&mut self, nodes: &[Node]) {
        let inner = match nodes.first() {
            Some(Node::Group('(', inner)) => inner.as_slice(),
            _ => nodes,
        };
        let Some(at) = inner.iter().take(12).position(|node| matches!(node.word(), Some("in" | "of"))) else {
            return;
        };
        let rest = &inner[at + 1..];
        let end = rest
            .iter()
            .position(|node| node.is(':') || *node == Node::Line || matches!(node.word(), Some("if" | "for" | "do")))
            .unwrap_or(rest.len());
        self.loop_over(&inner[..at], &rest[..end]);
    }

    /// One value of several expressions that stand side by side, of which any may be meant.
    pub(crate) fn any_of(&mut self, nodes: &[Node]) -> Eval {
        self.sequence(nodes).into_iter().reduce(Eval::or).unwrap_or_default()
    }

    pub(crate) fn emit(&mut self, eval: &Eval) {
        let how = match self.role {
            Role::Ignore | Role::Module | Role::Command => return,
            Role::Read | Role::Weak => MentionKind::Read,
            Role::Write | Role::WriteLast => MentionKind::Write,
            Role::List => MentionKind::List,
            Role::Glob => MentionKind::Glob,
            Role::State => MentionKind::State,
        };
        for name in &eval.names {
            self.names.use_of(name);
        }
        self.mention(eval, &how, eval.is_weak || self.role == Role::Weak);
    }

    pub(crate) fn mention(&mut self, eval: &Eval, how: &MentionKind, is_weak: bool) {
        let line = if eval.line > 0 { eval.line } else { self.line };
        // A text of another language, such as SQL, may name a file in quotation marks of its own.
        let texts = eval.values.iter().filter_map(Value::known).filter(|text| text.contains(' '));
        let quoted = texts
            .flat_map(|text| text.split(['\'', '"']).skip(1).step_by(2))
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>();
        self.found.files.extend(quoted.into_iter().take(64).map(|text| Mention {
            value: Value::text(text),
            how: MentionKind::Read,
            is_weak: true,
            group: 0,
            stands_in: false,
            line,
        }));
        let group = if eval.fallback.is_some() {
            self.groups += 1;
            self.groups
        } else {
            0
        };
        for value in eval.values.iter().filter(|value| !value.is_any()) {
            self.found.files.push(Mention {
                value: value.clone(),
                how: how.clone(),
                is_weak,
                group,
                stands_in: false,
                line,
            });
        }
        if let Some(value) = &eval.fallback {
            self.found.files.push(Mention {
                value: value.clone(),
                how: how.clone(),
                is_weak,
                group,
                stands_in: true,
                line,
            });
        }
    }

    /// Values of which one is chosen: `a or b`, `c ? a : b`, `a if c else b`.
    fn chain(&mut self, nodes: &[Node], start: usize) -> (Eval, usize) {
        if self.depth > DEEPEST {
            return (Eval::unknown(), start + 1);
        }
        self.depth += 1;
        let found = self.chosen(nodes, start);
        self.depth -= 1;
        found
    }

    fn chosen(&mut self, nodes: &[Node], start: usize) -> (Eval, usize) {
        let (mut eval, mut at) = self.joined(nodes, start);
        loop {
            match nodes.get(at) {
                Some(Node::Symbol('≡')) => {
                    // What is compared is not a file by that, and the answer is none.
                    let (other, next) = self.joined(nodes, at + 1);
                    self.emit(&Eval { is_weak: true, ..other });
                    self.emit(&Eval { is_weak: true, ..eval });
                    (eval, at) = (Eval::unknown(), next);
                }
                Some(Node::Symbol('|')) => {
                    let (other, next) = self.joined(nodes, at + 1);
                    (eval, at) = (eval.or(other), next);
                }
                Some(Node::Symbol('?')) => {
                    let (a, next) = self.chain(nodes, at + 1);
                    if !nodes.get(next).is_some_and(|node| node.is(':')) {
                        return (a, next);
                    }
                    let (b, next) = self.chain(nodes, next + 1);
                    return (a.or(b), next);
                }
                _ => return (eval, at),
            }
        }
    }

    /// Operands that make one name.
    fn joined(&mut self, nodes: &[Node], start: usize) -> (Eval, usize) {
        let (mut eval, mut at) = self.operand(nodes, start);
        loop {
            let operator = match nodes.get(at) {
                Some(Node::Symbol(operator @ ('+' | '/'))) => *operator,
                Some(Node::Symbol('%')) => {
                    let (fields, next) = self.fields(nodes, at + 1);
                    (eval, at) = (self.filled(eval, &fields), next);
                    continue;
                }
                _ => return (eval, at),
            };
            let (other, next) = self.operand(nodes, at + 1);
            let is_ruby = self.language == Language::Ruby;
            let (before, behind) = (self.opened(eval), self.opened(other));
            eval = before.with(behind, |a, b| {
                // Ruby's `Pathname + "x"`.
                let is_below = is_ruby && a.base != Base::Free && b.known().is_some_and(|text| text.starts_with(char::is_alphanumeric));
                if operator == '/' || is_below { a.join(b) } else { a.concat(b) }
            });
            at = next;
        }
    }

    /// A part of a name that may be another: a parameter, an argument of the program.
    pub(crate) fn opened(&self, eval: Eval) -> Eval {
        if eval.is_variable && !eval.values.is_empty() && eval.names.iter().any(|name| self.names.is_open(name)) {
            eval.or(Eval::of(vec![Value::any()]))
        } else {
            eval
        }
    }

    /// A template with its fields filled in; and left open, where they may hold other things too.
    pub(crate) fn filled(&self, template: Eval, fields: &[Eval]) -> Eval {
        let mut made = template.filled(fields);
        if made.names.iter().any(|name| self.names.is_open(name)) {
            made = match made.fallback.take() {
                Some(open) => made.or(Eval::of(vec![open])),
                None => made,
            };
        }
        made
    }

    /// What fills the fields of a template in, one after the other.
    fn fields(&mut self, nodes: &[Node], at: usize) -> (Vec<Eval>, usize) {
        let before = std::mem::replace(&mut self.role, Role::Ignore);
        let found = match nodes.get(at) {
            Some(Node::Group('(' | '[', inner)) => {
                let parts = split(inner, |node| node.is(','));
                (parts.iter().map(|part| self.any_of(part)).collect(), at + 1)
            }
            _ => {
                let (one, next) = self.operand(nodes, at);
                (vec![one], next)
            }
        };
        self.role = before;
        found
    }

    fn operand(&mut self, nodes: &[Node], at: usize) -> (Eval, usize) {
        if self.depth > DEEPEST {
            return (Eval::unknown(), at + 1);
        }
        self.depth += 1;
        let found = self.operand_at(nodes, at);
        self.depth -= 1;
        found
    }

    fn operand_at(&mut self, nodes: &[Node], at: usize) -> (Eval, usize) {
        let (eval, next) = match nodes.get(at) {
            None => return (Eval::unknown(), at),
            Some(Node::Text(pieces, line)) => (self.text(pieces, *line), at + 1),
            Some(Node::Word(_, line)) => {
                self.line = *line;
                self.word(nodes, at)
            }
            Some(Node::Group('(', inner)) => (self.group(inner), at + 1),
            Some(Node::Group('[', inner)) => (self.list(inner), at + 1),
            Some(Node::Group(_, inner)) => {
                let before = std::mem::replace(&mut self.role, Role::Read);
                self.braces(inner);
                self.role = before;
                return (Eval::unknown(), at + 1);
            }
            // `-e $file`, `*args`, `!x`, `\@list`.
            Some(Node::Symbol('-' | '*' | '!' | '\\' | '&')) => {
                let is_file_test =
                    self.language == Language::Perl && nodes.get(at + 1).and_then(Node::word).is_some_and(|word| word.len() == 1);
                let skip = 1 + usize::from(is_file_test && nodes.get(at + 2).is_some());
                return self.operand(nodes, at + skip);
            }
            Some(Node::Symbol(_) | Node::Line) => return (Eval::unknown(), at + 1),
        };
        self.postfix(eval, nodes, next)
    }

    /// A string, with what is known of its interpolated parts.
    fn text(&mut self, pieces: &[Piece], line: u32) -> Eval {
        let mut eval = Eval::of(vec![Value::text("")]);
        let mut open = Value::text("");
        let mut has_names = false;
        for piece in pieces {
            match piece {
                Piece::Plain(text) => {
                    eval = eval.map(|value| value.concat(&Value::text(text.as_str())));
                    open = open.concat(&Value::text(text.as_str()));
                }
                Piece::Hole(tokens) => {
                    let before = std::mem::replace(&mut self.role, Role::Ignore);
                    let inner = self.any_of(&nest(tokens.clone()));
                    self.role = before;
                    let is_place = inner.values.iter().any(|value| value.base != Base::Free);
                    has_names |= !inner.names.is_empty() && !is_place;
                    open = match inner.values.first().filter(|_| is_place) {
                        Some(value) if open.parts.is_empty() => value.clone(),
                        _ => open.concat(&Value::any()),
                    };
                    // A directory that begins a name is joined, not glued.
                    eval = eval.with(inner, |a, b| if a.parts.is_empty() { b.clone() } else { a.concat(b) });
                }
            }
        }
        if let (Language::Perl, [Piece::Plain(text), Piece::Hole(_), ..]) = (self.language, pieces)
            && let Some(prefix) = text.strip_suffix("::")
        {
            self.module(prefix.rsplit(' ').next().unwrap_or(prefix).to_owned(), true);
        }
        if eval.names.iter().any(|name| self.names.is_open(name)) {
            eval = eval.or(Eval::of(vec![open]));
        } else {
            eval.fallback = has_names.then_some(open);
        }
        eval.is_literal = matches!(pieces, [Piece::Plain(_)]);
        eval.line = line;
        if pieces.is_empty() { Eval::unknown() } else { eval }
    }

    /// What stands in round brackets: one value, or several.
    fn group(&mut self, inner: &[Node]) -> Eval {
        if inner.iter().any(|node| node.is(',')) {
            return self.list(inner);
        }
        self.any_of(inner)
    }

    fn list(&mut self, inner: &[Node]) -> Eval {
        let mut all = Eval::unknown();
        for part in split(inner, |node| node.is(',')) {
            let element = self.any_of(part);
            if all.values.len() >= MOST {
                // More than one name may stand for: each is a mention of its own.
                self.emit(&element);
            } else {
                all = all.or(element);
            }
        }
        all
    }

    /// A name, a call, or a member of something.
    fn word(&mut self, nodes: &[Node], start: usize) -> (Eval, usize) {
        let mut words: Vec<&str> = nodes[start].word().into_iter().collect();
        let mut at = start + 1;
        while let (Some(Node::Symbol('.')), Some(Node::Word(word, _))) = (nodes.get(at), nodes.get(at + 1)) {
            words.push(word);
            at += 2;
        }
        // Julia's and Ruby's `push!`, `exist?`.
        if nodes.get(at).is_some_and(|node| node.is('!') || node.is('?')) && matches!(nodes.get(at + 1), Some(Node::Group('(', _))) {
            at += 1;
        }
        match nodes.get(at) {
            Some(Node::Group('(', inner)) => (self.call(&words, inner), at + 1),
            Some(_) if self.is_command(&words, &nodes[at..]) => (self.call(&words, &nodes[at..]), nodes.len()),
            _ => (self.variable(&words), at),
        }
    }
}
