//! Expressions: what they may come to as the name of a file, and which files they mention on the way.

use super::{
    code::{How, Mention, Reader},
    eval::Eval,
    language::Language,
    lex::Piece,
    nodes::{Node, nest, split},
    roles::Role,
    value::{MOST, Value},
};

impl Reader<'_> {
    /// Reads expressions that stand side by side, and takes what they come to for mentions.
    pub(super) fn sequence_emitted(&mut self, nodes: &[Node]) {
        for eval in self.sequence(nodes) {
            self.emit(&eval);
        }
    }

    /// Reads expressions that stand side by side.
    pub(super) fn sequence(&mut self, nodes: &[Node]) -> Vec<Eval> {
        let mut evals = Vec::new();
        let mut at = 0;
        while at < nodes.len() {
            let before = at;
            let (eval, next) = self.chain(nodes, at);
            if !eval.values.is_empty() {
                evals.push(eval);
            }
            at = next.max(before + 1);
        }
        evals
    }

    /// One value of several expressions that stand side by side, of which any may be meant.
    pub(super) fn any_of(&mut self, nodes: &[Node]) -> Eval {
        self.sequence(nodes).into_iter().reduce(Eval::or).unwrap_or_default()
    }

    pub(super) fn emit(&mut self, eval: &Eval) {
        let how = match self.role {
            Role::Ignore | Role::Module | Role::Command => return,
            Role::Read | Role::Weak => How::Read,
            Role::Write | Role::WriteLast => How::Write,
            Role::List => How::List,
            Role::Glob => How::Glob,
            Role::State => How::State,
        };
        for name in &eval.names {
            self.names.use_of(name);
        }
        self.mention(eval, &how, eval.is_weak || self.role == Role::Weak);
    }

    pub(super) fn mention(&mut self, eval: &Eval, how: &How, is_weak: bool) {
        let line = if eval.line > 0 { eval.line } else { self.line };
        // A text of another language, such as SQL, may name a file in quotation marks of its own.
        let texts = eval.values.iter().filter_map(Value::known).filter(|text| text.contains(' '));
        let quoted = texts
            .flat_map(|text| text.split(['\'', '"']).skip(1).step_by(2))
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>();
        self.found.files.extend(quoted.into_iter().take(64).map(|text| Mention {
            value: Value::text(text),
            how: How::Read,
            is_weak: true,
            line,
        }));
        for value in eval.values.iter().filter(|value| !value.is_any()) {
            self.found.files.push(Mention {
                value: value.clone(),
                how: how.clone(),
                is_weak,
                line,
            });
        }
    }

    /// Values of which one is chosen: `a or b`, `c ? a : b`, `a if c else b`.
    fn chain(&mut self, nodes: &[Node], start: usize) -> (Eval, usize) {
        let (mut eval, mut at) = self.joined(nodes, start);
        loop {
            match nodes.get(at) {
                Some(Node::Symbol('≡')) => {
                    // What is compared is no file by that, and the answer is none.
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
            (eval, at) = match nodes.get(at) {
                Some(Node::Symbol('+')) => {
                    let (other, next) = self.operand(nodes, at + 1);
                    (eval.with(other, Value::concat), next)
                }
                Some(Node::Symbol('/')) => {
                    let (other, next) = self.operand(nodes, at + 1);
                    (eval.with(other, Value::join), next)
                }
                Some(Node::Symbol('%')) => {
                    let (fields, next) = self.fields(nodes, at + 1);
                    (eval.filled(&fields), next)
                }
                _ => return (eval, at),
            };
        }
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
        for piece in pieces {
            match piece {
                Piece::Plain(text) => eval = eval.map(|value| value.concat(&Value::text(text.as_str()))),
                Piece::Hole(tokens) => {
                    let before = std::mem::replace(&mut self.role, Role::Ignore);
                    let inner = self.any_of(&nest(tokens.clone()));
                    self.role = before;
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

    /// Whether what follows a name are its arguments, without brackets: `require "x"`, `open my $f, '<', $path`.
    fn is_command(&self, words: &[&str], rest: &[Node]) -> bool {
        const COMMANDS: [&str; 24] = [
            "require",
            "require_relative",
            "load",
            "include",
            "include_once",
            "require_once",
            "open",
            "do",
            "opendir",
            "system",
            "exec",
            "puts",
            "print",
            "echo",
            "die",
            "warn",
            "unlink",
            "mkdir",
            "rename",
            "raise",
            "copy",
            "move",
            "chdir",
            "autoload",
        ];
        let name = words.last().copied().unwrap_or_default();
        match (self.language, rest.first()) {
            (Language::Ruby, Some(Node::Text(..))) => {
                !matches!(name, "if" | "unless" | "when" | "in" | "return" | "then" | "do" | "end" | "not")
            }
            (Language::Perl | Language::Php | Language::Ruby, Some(Node::Text(..) | Node::Word(..) | Node::Group('[', _))) => {
                COMMANDS.contains(&name)
            }
            (Language::Perl | Language::Ruby, Some(Node::Symbol('*' | '<'))) => matches!(name, "open" | "print"),
            (_, _) => false,
        }
    }

    pub(super) fn variable(&mut self, words: &[&str]) -> Eval {
        let full = words.join(".");
        if let Some(value) = self.here(&full) {
            return Eval::of(vec![value]);
        }
        let last = words.last().copied().unwrap_or_default();
        let (name, climbs) = match words {
            [.., name, "parent"] => (*name, true),
            _ => (last, false),
        };
        let values = self.names.get(name).to_vec();
        let eval = Eval {
            names: vec![name.to_owned()],
            is_variable: true,
            ..Eval::of(values)
        };
        if climbs { eval.map(Value::parent) } else { eval }
    }

    /// What the languages call the file that runs, and its directory.
    pub(super) fn here(&self, name: &str) -> Option<Value> {
        let file = || Value::at(self.dir).join(&Value::text(self.path.file_name().unwrap_or_default().to_string_lossy()));
        match name {
            "__file__" | "__filename" | "__FILE__" | "import.meta.url" | "import.meta.filename" => Some(file()),
            "__dirname" | "__dir__" | "__DIR__" | "import.meta.dirname" | "FindBin.Bin" | "FindBin.RealBin" => Some(Value::at(self.dir)),
            "Bin" | "RealBin" if self.language == Language::Perl => Some(Value::at(self.dir)),
            "PROGRAM_NAME" | "0" if matches!(self.language, Language::Perl | Language::Ruby) && !name.is_empty() => Some(file()),
            _ => None,
        }
    }

    /// Members, further calls, and places of a list, behind a value.
    fn postfix(&mut self, mut eval: Eval, nodes: &[Node], mut at: usize) -> (Eval, usize) {
        loop {
            match (nodes.get(at), nodes.get(at + 1), nodes.get(at + 2)) {
                (Some(Node::Symbol('.')), Some(Node::Word(name, _)), Some(Node::Group('(', inner))) => {
                    eval = self.method(eval, "", name, inner);
                    at += 3;
                }
                (Some(Node::Symbol('.')), Some(Node::Word(name, _)), Some(Node::Group('[', inner))) if name == "parents" => {
                    let climbs = inner
                        .first()
                        .and_then(Node::word)
                        .and_then(|word| word.parse::<usize>().ok())
                        .unwrap_or(0);
                    for _ in 0..=climbs.min(16) {
                        eval = eval.map(Value::parent);
                    }
                    at += 3;
                }
                (Some(Node::Symbol('.')), Some(Node::Word(name, _)), _) => {
                    eval = match name.as_str() {
                        "parent" => eval.map(Value::parent),
                        "to_s" | "realpath" | "expand_path" | "pathname" | "href" | "freeze" | "dup" => eval,
                        "children" | "entries" | "each_child" if !eval.values.is_empty() => {
                            self.emit_as(Role::List, &eval);
                            Eval::unknown()
                        }
                        _ => Eval::unknown(),
                    };
                    at += 2;
                }
                (Some(Node::Group('[', inner)), _, _) => {
                    eval = self.subscript(eval, inner);
                    at += 1;
                }
                (Some(Node::Group('(', inner)), _, _) => {
                    self.arguments(Role::Read, inner);
                    eval = Eval::unknown();
                    at += 1;
                }
                _ => return (eval, at),
            }
        }
    }

    fn subscript(&mut self, eval: Eval, inner: &[Node]) -> Eval {
        let place = inner.first().and_then(Node::word);
        if eval.names.first().is_some_and(|name| matches!(name.as_str(), "argv" | "ARGV")) {
            self.names.use_of("argv");
        }
        if eval.is_variable
            && eval.names.first().is_some_and(|name| name == "argv")
            && matches!(
                (self.language, place),
                (Language::Python, Some("0")) | (Language::JavaScript, Some("1"))
            )
        {
            return Eval::of(self.here("__file__").into_iter().collect());
        }
        if let Some(key) = inner.first().and_then(Node::plain).filter(|_| inner.len() == 1) {
            let values = self.names.get(key).to_vec();
            return Eval {
                names: vec![key.to_owned()],
                ..Eval::of(values)
            };
        }
        let before = std::mem::replace(&mut self.role, Role::Weak);
        self.sequence_emitted(inner);
        self.role = before;
        eval
    }

    pub(super) fn emit_as(&mut self, role: Role, eval: &Eval) {
        let before = std::mem::replace(&mut self.role, role);
        self.emit(eval);
        self.role = before;
    }
}
