//! Expressions: what they may come to as the name of a file, and which files they mention on the way.

use super::{
    code::{How, Mention, Reader},
    language::Language,
    lex::Piece,
    nodes::{Node, nest, split},
    roles::{Fold, Role, fold, is_ignored_parameter, role},
    value::{MOST, Value, product},
};

/// What an expression came to.
#[derive(Debug, Default, Clone)]
pub(super) struct Eval {
    pub(super) values: Vec<Value>,
    /// The names that it was made of.
    pub(super) names: Vec<String>,
    /// Whether it is one string as it is written.
    is_literal: bool,
    /// Whether it is compared with something.
    is_weak: bool,
    line: u32,
}

impl Eval {
    fn of(values: Vec<Value>) -> Self {
        Self { values, ..Self::default() }
    }

    /// Something that is not known.
    fn unknown() -> Self {
        Self::default()
    }

    fn or_any(&self) -> Vec<Value> {
        if self.values.is_empty() {
            vec![Value::any()]
        } else {
            self.values.clone()
        }
    }

    fn with(mut self, other: Self, combine: impl Fn(&Value, &Value) -> Value) -> Self {
        // Two unknown things make no name.
        self.values = if self.values.is_empty() && other.values.is_empty() {
            Vec::new()
        } else {
            product(&self.or_any(), &other.or_any(), combine)
        };
        self.names.extend(other.names);
        self.is_literal = false;
        self
    }

    fn or(mut self, other: Self) -> Self {
        for value in other.values {
            if self.values.len() < MOST && !self.values.contains(&value) {
                self.values.push(value);
            }
        }
        self.names.extend(other.names);
        self
    }

    fn map(mut self, change: impl Fn(&Value) -> Value) -> Self {
        self.values = self.values.iter().map(change).collect();
        self.is_literal = false;
        self
    }
}

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
    fn any_of(&mut self, nodes: &[Node]) -> Eval {
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
        for value in eval.values.iter().filter(|value| !value.is_any()) {
            self.found.files.push(Mention {
                value: value.clone(),
                how: how.clone(),
                is_weak,
                line,
            });
        }
    }

    /// Operands that operators join.
    fn chain(&mut self, nodes: &[Node], start: usize) -> (Eval, usize) {
        let (mut eval, mut at) = self.operand(nodes, start);
        while let Some(Node::Symbol(operator)) = nodes.get(at) {
            match operator {
                '+' => {
                    let (other, next) = self.operand(nodes, at + 1);
                    (eval, at) = (eval.with(other, Value::concat), next);
                }
                '/' => {
                    let (other, next) = self.operand(nodes, at + 1);
                    (eval, at) = (eval.with(other, Value::join), next);
                }
                '|' => {
                    let (other, next) = self.chain(nodes, at + 1);
                    return (eval.or(other), next);
                }
                '?' => {
                    let (a, next) = self.chain(nodes, at + 1);
                    if !nodes.get(next).is_some_and(|node| node.is(':')) {
                        return (a, next);
                    }
                    let (b, next) = self.chain(nodes, next + 1);
                    return (a.or(b), next);
                }
                // What fills a template in.
                '%' => {
                    let before = std::mem::replace(&mut self.role, Role::Weak);
                    let (other, next) = self.operand(nodes, at + 1);
                    self.emit(&other);
                    self.role = before;
                    at = next;
                }
                '≡' => {
                    let (mut other, next) = self.chain(nodes, at + 1);
                    other.is_weak = true;
                    self.emit(&other);
                    eval.is_weak = true;
                    return (eval, next);
                }
                _ => break,
            }
        }
        (eval, at)
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

    fn variable(&mut self, words: &[&str]) -> Eval {
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
            ..Eval::of(values)
        };
        if climbs { eval.map(Value::parent) } else { eval }
    }

    /// What the languages call the file that runs, and its directory.
    fn here(&self, name: &str) -> Option<Value> {
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
                        "to_s" | "realpath" | "expand_path" | "pathname" | "href" => eval,
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
        if eval.names.first().is_some_and(|name| name == "argv")
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

    fn emit_as(&mut self, role: Role, eval: &Eval) {
        let before = std::mem::replace(&mut self.role, role);
        self.emit(eval);
        self.role = before;
    }

    fn call(&mut self, words: &[&str], inner: &[Node]) -> Eval {
        let (name, object) = words.split_last().map_or(("", ""), |(name, _)| (*name, ""));
        let object_words = &words[..words.len().saturating_sub(1)];
        let object_name = object_words.join(".");
        if object_words.is_empty() {
            return self.function(object, name, inner);
        }
        if matches!(object_name.as_str(), "sys.path") {
            self.searched_arguments(inner);
            return Eval::unknown();
        }
        // A module's function rather than a method of something that has the module's name.
        if !inner.is_empty() && matches!(object_words.last(), Some(&("path" | "os" | "File" | "fs" | "pathlib"))) {
            return self.function(&object_name, name, inner);
        }
        let receiver = self.variable(object_words);
        self.method(receiver, &object_name, name, inner)
    }

    fn searched_arguments(&mut self, inner: &[Node]) {
        for part in split(inner, |node| node.is(',')) {
            let eval = self.any_of(part);
            self.search(&eval.values);
            for name in &eval.names {
                self.names.use_of(name);
            }
        }
    }

    /// A call of something that a value has.
    fn method(&mut self, receiver: Eval, object: &str, name: &str, inner: &[Node]) -> Eval {
        if receiver.values.is_empty() {
            return self.function(object, name, inner);
        }
        match name {
            "resolve" | "absolute" | "expanduser" | "as_posix" | "to_s" | "to_path" | "realpath" | "toString" | "strip" | "trim"
            | "format" | "as_uri" => {
                self.arguments(Role::Weak, inner);
                receiver
            }
            "joinpath" | "join" if !receiver.is_literal => {
                let mut all = receiver;
                for part in split(inner, |node| node.is(',')) {
                    let other = self.any_of(part);
                    all = all.with(other, Value::join);
                }
                all
            }
            "with_suffix" | "sub_ext" => match inner.first().and_then(Node::plain) {
                Some(extension) => receiver.map(|value| value.with_extension(extension)),
                None => Eval::unknown(),
            },
            "with_name" => {
                let other = self.any_of(inner);
                receiver.map(Value::parent).with(other, Value::join)
            }
            "glob" | "rglob" | "iglob" => {
                let below = if name == "rglob" {
                    receiver.map(|value| value.join(&Value::text("**")))
                } else {
                    receiver
                };
                let pattern = self.any_of(inner);
                self.emit_as(Role::Glob, &below.with(pattern, Value::join));
                Eval::unknown()
            }
            "rename" | "replace" | "move" | "copy" if split(inner, |node| node.is(',')).len() == 1 => {
                self.emit_as(Role::Read, &receiver);
                self.arguments(Role::Write, inner);
                Eval::unknown()
            }
            _ if receiver.is_literal => {
                // A method of a text: the text is its material.
                self.arguments(Role::Weak, inner);
                Eval::unknown()
            }
            _ => {
                let texts = plain_texts(inner);
                let does = role("Path", name, &texts);
                let is_text_method = matches!(does, Role::Weak | Role::Ignore) && name != "write";
                if !is_text_method {
                    self.emit_as(if does == Role::WriteLast { Role::Read } else { does }, &receiver);
                }
                self.arguments(if is_text_method { Role::Weak } else { Role::Read }, inner);
                Eval::unknown()
            }
        }
    }

    fn function(&mut self, object: &str, name: &str, inner: &[Node]) -> Eval {
        if let Some(fold) = fold(object, name) {
            return self.fold(fold, inner);
        }
        if self.is_require(object, name) {
            self.required(inner);
            return Eval::unknown();
        }
        let texts = plain_texts(inner);
        let does = match (object, name) {
            ("write", _) if self.language == Language::R => Role::Write,
            ("list", "files" | "dirs") => Role::List,
            ("dir", "create") => Role::Write,
            ("file", "copy" | "rename") => Role::WriteLast,
            _ => role(object, name, &texts),
        };
        match does {
            Role::Command => self.command(inner),
            Role::Module => self.required(inner),
            _ => self.arguments(does, inner),
        }
        if name == "add_argument" || name == "option" || name == "add_option" {
            self.option(inner);
        }
        Eval::unknown()
    }

    fn is_require(&self, object: &str, name: &str) -> bool {
        match self.language {
            Language::JavaScript => {
                (object.is_empty() && matches!(name, "require" | "import")) || (object == "require" && name == "resolve")
            }
            Language::Ruby => matches!(name, "require" | "require_relative"),
            _ => false,
        }
    }

    /// A module whose name is an expression.
    fn required(&mut self, inner: &[Node]) {
        let first = split(inner, |node| node.is(',')).first().map_or(&[][..], |part| *part);
        let eval = self.any_of(first);
        for value in &eval.values {
            match value.known() {
                Some(name) if value.base == super::value::Base::Free => self.module(name.to_owned(), false),
                // `path.join(__dirname, "x")`.
                Some(_) => self.mention(&Eval::of(vec![value.clone()]), &How::Read, false),
                None => {
                    if let Some(super::value::Part::Text(prefix)) = value.parts.first() {
                        self.module(prefix.clone(), true);
                    }
                }
            }
        }
    }

    /// An option of a command line, by whose name its default goes on.
    fn option(&mut self, inner: &[Node]) {
        let parts = split(inner, |node| node.is(','));
        let name = parts
            .iter()
            .filter_map(|part| part.first()?.plain())
            .rfind(|text| text.starts_with('-') || parts.len() > 1);
        let default = parts.iter().find(|part| part.len() > 2 && part[0].word() == Some("default"));
        if let (Some(name), Some(default)) = (name.map(|name| name.trim_start_matches('-').replace('-', "_")), default) {
            let eval = self.any_of(&default[2..]);
            self.names.define(&name, &eval.values);
        }
    }

    fn fold(&mut self, fold: Fold, inner: &[Node]) -> Eval {
        let parts = split(inner, |node| node.is(','));
        let mut evals = Vec::with_capacity(parts.len());
        for part in &parts {
            evals.push(self.any_of(unnamed(part)));
        }
        let mut evals = evals.into_iter();
        match fold {
            Fold::Here => Eval::of(vec![Value::current()]),
            Fold::Join => evals.reduce(|a, b| a.with(b, Value::join)).unwrap_or_default(),
            Fold::Concat => evals.reduce(|a, b| a.with(b, Value::concat)).unwrap_or_default(),
            Fold::Parent => evals.next().unwrap_or_default().map(Value::parent),
            Fold::Default => evals.nth(1).unwrap_or_default(),
            Fold::Template => evals.next().unwrap_or_default(),
            Fold::Same => {
                let first = evals.next().unwrap_or_default();
                match evals.next() {
                    // `new URL("x", import.meta.url)`, `File.expand_path("x", __dir__)`, and `Path("a", "b")`.
                    Some(second) if !second.values.is_empty() => {
                        let is_base = second.values.iter().all(|value| value.base != super::value::Base::Free);
                        if !is_base {
                            return evals.fold(first.with(second, Value::join), |a, b| a.with(b, Value::join));
                        }
                        let is_file = |value: &Value| !value.parts.is_empty() && value.known().is_some_and(|text| text.contains('.'));
                        second
                            .map(|value| if is_file(value) { value.parent() } else { value.clone() })
                            .with(first, Value::join)
                    }
                    _ => first,
                }
            }
        }
    }

    /// The arguments of a function that does this with paths.
    fn arguments(&mut self, does: Role, inner: &[Node]) {
        let parts = split(inner, |node| node.is(','));
        let positional = parts.iter().filter(|part| named(part).is_none()).count();
        let mut place = 0;
        for part in parts {
            let parameter = named(part);
            place += usize::from(parameter.is_none());
            let role = match (does, parameter) {
                (_, Some(name)) if is_ignored_parameter(name) => Role::Ignore,
                (Role::WriteLast, None) if place == positional && positional > 1 => Role::Write,
                (Role::WriteLast, Some("dst" | "target" | "to")) => Role::Write,
                (Role::WriteLast, _) => Role::Read,
                (Role::Read, Some("output" | "outfile" | "out_file" | "out")) => Role::Read,
                (role, _) => role,
            };
            let before = std::mem::replace(&mut self.role, role);
            let line = self.line;
            let evals = self.sequence(unnamed(part));
            for eval in &evals {
                if let Some(name) = parameter {
                    self.names.define(name, &eval.values);
                }
                self.emit(eval);
            }
            self.line = line;
            self.role = before;
        }
    }

    /// A command that is run: one text for a shell, or its words.
    fn command(&mut self, inner: &[Node]) {
        let parts = split(inner, |node| node.is(','));
        let Some(first) = parts.first() else { return };
        let words: Vec<&[Node]> = match unnamed(first) {
            [Node::Group('[', list)] => split(list, |node| node.is(',')),
            // `system("perl", "x.pl")`, `spawn("node", ["x.js"])`.
            _ if parts.len() > 1 => {
                let listed = parts[1..].iter().flat_map(|part| match part {
                    [Node::Group('[', list)] => split(list, |node| node.is(',')),
                    part if named(part).is_none() => vec![*part],
                    _ => Vec::new(),
                });
                std::iter::once(*first).chain(listed).collect()
            }
            _ => Vec::new(),
        };
        let before = std::mem::replace(&mut self.role, Role::Read);
        if words.is_empty() {
            let eval = self.any_of(unnamed(first));
            for value in &eval.values {
                match value.known() {
                    Some(text) => self.found.commands.push((text.to_owned(), self.line)),
                    None => {
                        let text: String = value
                            .parts
                            .iter()
                            .map(|part| if let super::value::Part::Text(text) = part { text } else { "$_" })
                            .collect();
                        self.found.commands.push((text, self.line));
                    }
                }
            }
        } else {
            self.command_words(&words);
        }
        for part in parts.iter().skip(1).filter(|part| named(part).is_some()) {
            self.sequence_emitted(unnamed(part));
        }
        self.role = before;
    }

    fn command_words(&mut self, words: &[&[Node]]) {
        let mut line = Vec::new();
        for word in words {
            let eval = self.any_of(word);
            let known = eval
                .values
                .first()
                .filter(|value| value.base == super::value::Base::Free)
                .and_then(Value::known);
            match known {
                Some(text) => line.push(shell_words::quote(text).into_owned()),
                // sys.executable
                None if word.last().and_then(Node::word) == Some("executable") => line.push("python3".to_owned()),
                None if word.last().and_then(Node::word) == Some("execPath") => line.push("node".to_owned()),
                None => {
                    self.emit(&eval);
                    line.push("$_".to_owned());
                }
            }
        }
        self.found.commands.push((line.join(" "), self.line));
    }
}

/// The parameter that an argument is for: `mode="w"`, `mode: "w"`, `mode => "w"`.
fn named<'a>(part: &'a [Node]) -> Option<&'a str> {
    match part {
        [Node::Word(name, _), Node::Symbol('=' | ':'), _, ..] => Some(name),
        _ => None,
    }
}

fn unnamed<'a>(part: &'a [Node]) -> &'a [Node] {
    if named(part).is_some() { &part[2..] } else { part }
}

/// The strings among arguments, also those that stand in braces.
fn plain_texts(inner: &[Node]) -> Vec<&str> {
    let mut texts = Vec::new();
    for node in inner {
        match node {
            Node::Group('{', nested) => texts.extend(nested.iter().filter_map(Node::plain)),
            // `flags` that are constants.
            Node::Word(word, _) if matches!(word.as_str(), "FILE_APPEND" | "LOCK_EX") => {
                texts.push(if word == "FILE_APPEND" { "a" } else { "" })
            }
            node => texts.extend(node.plain()),
        }
    }
    texts
}
