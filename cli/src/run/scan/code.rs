//! What a program's source mentions: files, modules, commands, and where modules are searched for.
//!
//! It is read, not run: constants are followed, what is computed is a gap in a name. The statements are here, their expressions in
//! `expression`.

use std::path::Path;

use super::{
    language::Language,
    lex::lex,
    mention::{MentionKind, Mentions, Module},
    names::Names,
    nodes::{Node, nest, split, statements},
    roles::Role,
    value::Value,
};

/// Source text that was cut into tokens once, to be read several times.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) language: Language,
    nodes: Vec<Node>,
}

impl Source {
    pub(crate) fn of(text: &str, language: Language) -> Self {
        Self {
            language,
            nodes: nest(lex(text, language)),
        }
    }

    /// What it mentions. `path` is where it stands.
    pub(crate) fn read(&self, path: &Path, names: &mut Names) -> Mentions {
        names.enter(path);
        let mut reader = Reader {
            path,
            dir: path.parent().unwrap_or(path),
            language: self.language,
            names,
            found: Mentions::default(),
            role: Role::Read,
            line: 1,
            groups: 0,
            depth: 0,
        };
        reader.block(&self.nodes);
        reader.found
    }
}

/// A source that is being read.
pub(crate) struct Reader<'a> {
    pub(crate) path: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) language: Language,
    pub(crate) names: &'a mut Names,
    pub(crate) found: Mentions,
    /// What the innermost function does with its arguments.
    pub(crate) role: Role,
    pub(crate) line: u32,
    /// How many expressions had a mention to stand in.
    pub(crate) groups: u32,
    /// How deeply expressions stand in expressions here.
    pub(crate) depth: usize,
}

impl Reader<'_> {
    pub(crate) fn block(&mut self, nodes: &[Node]) {
        for statement in statements(nodes) {
            self.statement(statement);
        }
    }

    /// What stands in braces: statements, or keys with their values.
    pub(crate) fn braces(&mut self, nodes: &[Node]) {
        let is_end = |node: &Node| node.is(',') || node.is(';') || *node == Node::Line;
        let is_entry = |part: &&[Node]| part.len() > 2 && part[1].is(':') && matches!(part[0], Node::Word(..) | Node::Text(..));
        if !split(nodes, is_end).first().is_some_and(is_entry) {
            return self.block(nodes);
        }
        for part in split(nodes, is_end) {
            if is_entry(&part) {
                let key = part[0].word().or_else(|| part[0].plain()).unwrap_or_default().to_owned();
                self.define(&key, &part[2..]);
            } else {
                self.sequence_emitted(part);
            }
        }
    }

    fn statement(&mut self, nodes: &[Node]) {
        if let Some(Node::Word(_, line) | Node::Text(_, line)) = nodes.first() {
            self.line = *line;
        }
        if self.imports(nodes) {
            return;
        }
        self.function_of(nodes);
        let is_load_path = |node: &Node| matches!(node.word(), Some("LOAD_PATH" | "set_include_path" | "addsitedir"));
        if nodes.iter().any(is_load_path) {
            return self.searched(nodes);
        }
        let assigned = nodes.iter().position(|node| node.is('='));
        if let Some(at) = assigned.filter(|at| *at > 0) {
            let (target, value) = (&nodes[..at], &nodes[at + 1..]);
            let is_search_path = matches!(target, [Node::Word(a, _), Node::Symbol('.'), Node::Word(b, _), ..] if a == "sys" && b == "path");
            if is_search_path {
                return self.searched(value);
            }
            let (targets, values) = (split(target, |node| node.is(',')), split(value, |node| node.is(',')));
            if targets.len() > 1 && targets.len() == values.len() {
                for (target, value) in targets.into_iter().zip(values) {
                    match target_name(target) {
                        Some(name) => self.define(&name, value),
                        None => self.sequence_emitted(value),
                    }
                }
                return;
            }
            let name = target_name(target);
            // What stands before it may call something: `a(b).c = d`.
            if target.iter().any(|node| matches!(node, Node::Group('(', _))) {
                self.sequence_emitted(target);
            }
            return match name {
                Some(name) => self.define(&name, value),
                None => self.sequence_emitted(value),
            };
        }
        let first = nodes.first().and_then(Node::word).unwrap_or_default();
        let is_question = matches!(
            first,
            "if" | "elif" | "elsif" | "while" | "until" | "unless" | "assert" | "case" | "when" | "switch"
        );
        let before = std::mem::replace(&mut self.role, if is_question { Role::Weak } else { Role::Read });
        self.sequence_emitted(nodes);
        self.role = before;
    }

    /// Notes a function that is defined here, and its parameters.
    fn function_of(&mut self, nodes: &[Node]) {
        let at = nodes
            .iter()
            .position(|node| matches!(node.word(), Some("def" | "function" | "fn" | "sub")));
        let Some(at) = at else { return };
        let (name, parameters) = match &nodes[at + 1..] {
            [Node::Word(name, _), Node::Group('(', parameters), ..] => (name.as_str(), parameters),
            // R: `f <- function(x)`; JavaScript: `const f = function (x)`.
            [Node::Group('(', parameters), ..] => match nodes[..at].iter().rev().find_map(Node::word) {
                Some(name) => (name, parameters),
                None => return,
            },
            _ => return,
        };
        let names = split(parameters, |node| node.is(','))
            .into_iter()
            .filter_map(|part| part.iter().find_map(Node::word));
        let names = names
            .filter(|name| !matches!(*name, "self" | "cls"))
            .map(ToOwned::to_owned)
            .collect();
        self.names.function(name, names);
    }

    /// `for a in b`: the name stands for what it runs through.
    pub(crate) fn loop_over(&mut self, targets: &[Node], iterable: &[Node]) {
        let names: Vec<String> = targets
            .iter()
            .filter_map(Node::word)
            .filter(|word| !matches!(*word, "const" | "let" | "var" | "my"))
            .map(ToOwned::to_owned)
            .collect();
        let inner = match iterable {
            [Node::Word(word, _), Node::Group('(', inner), ..] if word == "zip" => split(inner, |node| node.is(',')),
            [Node::Word(word, _), Node::Group('(', inner), ..] if word == "enumerate" => vec![&[][..], inner.as_slice()],
            [Node::Group('[' | '(', inner), ..] if names.len() > 1 => {
                // Each element has a part for each name.
                for element in split(inner, |node| node.is(',')) {
                    let [Node::Group('(' | '[', parts)] = element else { continue };
                    for (name, part) in names.iter().zip(split(parts, |node| node.is(','))) {
                        self.stand_for(name, part);
                    }
                }
                return;
            }
            _ if names.len() == 1 => vec![iterable],
            _ => return,
        };
        for (name, part) in names.iter().zip(inner) {
            self.stand_for(name, part);
        }
    }

    fn stand_for(&mut self, name: &str, nodes: &[Node]) {
        let before = std::mem::replace(&mut self.role, Role::Ignore);
        let values: Vec<Value> = self.sequence(nodes).into_iter().flat_map(|eval| eval.values).collect();
        self.role = before;
        self.names.define_open(name, &values);
    }

    /// Takes a name's value.
    pub(crate) fn define(&mut self, name: &str, nodes: &[Node]) {
        let before = std::mem::replace(&mut self.role, Role::Read);
        for eval in self.sequence(nodes) {
            if eval.names.iter().any(|used| self.names.is_open(used)) {
                self.names.define_open(name, &eval.values);
            } else {
                self.names.define(name, &eval.values);
            }
            for used in &eval.names {
                self.names.use_of(used);
            }
            self.mention(&eval, &MentionKind::Define(name.to_owned()), false);
        }
        self.role = before;
    }

    fn searched(&mut self, nodes: &[Node]) {
        for eval in self.sequence(nodes) {
            self.search(&eval.values);
        }
    }

    pub(crate) fn search(&mut self, values: &[Value]) {
        let known = values.iter().filter(|value| !value.is_any()).cloned();
        self.found.search.extend(known);
    }

    /// Reads a statement that imports modules, if it is one.
    fn imports(&mut self, nodes: &[Node]) -> bool {
        match (self.language, nodes.first().and_then(Node::word)) {
            (Language::Python, Some("import")) => self.python_import(&nodes[1..]),
            (Language::Python, Some("from")) => self.python_from(&nodes[1..]),
            (Language::JavaScript, Some("import" | "export")) => match nodes.iter().rev().find_map(Node::plain) {
                // `import("x")` is an expression, and `export const x = "y"` no import.
                Some(name) if !nodes.iter().any(|node| node.is('=')) && !matches!(nodes.get(1), Some(Node::Group('(', _))) => {
                    let name = name.to_owned();
                    self.module(name, false);
                    true
                }
                _ => false,
            },
            (Language::Perl, Some("use" | "no")) if nodes.get(1).and_then(Node::word) == Some("lib") => {
                self.searched(&nodes[2..]);
                true
            }
            (Language::Perl, Some("use" | "require")) if nodes.get(1).and_then(Node::word).is_some() => {
                self.perl_use(&nodes[1..]);
                true
            }
            (_, _) => false,
        }
    }

    pub(crate) fn module(&mut self, name: String, is_open: bool) {
        self.found.modules.push(Module {
            name,
            is_open,
            level: 0,
            members: Vec::new(),
            line: self.line,
        });
    }

    fn python_import(&mut self, nodes: &[Node]) -> bool {
        for part in split(nodes, |node| node.is(',')) {
            let name = dotted(part);
            if !name.is_empty() {
                self.module(name, false);
            }
        }
        true
    }

    fn python_from(&mut self, nodes: &[Node]) -> bool {
        let Some(at) = nodes.iter().position(|node| node.word() == Some("import")) else {
            return false;
        };
        let (name, taken) = (&nodes[..at], &nodes[at + 1..]);
        // Three dots are one symbol.
        let level = name.iter().take_while(|node| node.word().is_none());
        let level = level.map(|node| if node.is(',') { 3 } else { 1 }).sum();
        let start = name.iter().position(|node| node.word().is_some()).unwrap_or(name.len());
        let taken = match taken.first() {
            Some(Node::Group('(', inner)) => inner,
            _ => taken,
        };
        let members = split(taken, |node| node.is(','));
        self.found.modules.push(Module {
            name: dotted(&name[start..]),
            is_open: false,
            level,
            members: members
                .iter()
                .filter_map(|part| part.first()?.word().map(ToOwned::to_owned))
                .collect(),
            line: self.line,
        });
        true
    }

    fn perl_use(&mut self, nodes: &[Node]) {
        let name = dotted(nodes);
        // `use parent -norequire, 'A::B'`, `use base 'A::B'`.
        if matches!(name.as_str(), "parent" | "base") {
            for inherited in nodes
                .iter()
                .filter_map(Node::plain)
                .map(|name| name.replace("::", "."))
                .collect::<Vec<_>>()
            {
                self.module(inherited, false);
            }
        } else {
            self.module(name, false);
        }
    }
}

/// The name that a value is given: `x` of `const x`, `self.x`, `x: Path`, `my $x`, `d["x"]`.
fn target_name(target: &[Node]) -> Option<String> {
    let before_type = target.iter().position(|node| node.is(':')).map_or(target, |at| &target[..at]);
    match before_type.last()? {
        Node::Word(word, _) => Some(word.clone()),
        Node::Group('[' | '{', inner) => inner
            .iter()
            .find_map(|node| node.plain().or_else(|| node.word()))
            .map(ToOwned::to_owned),
        _ => None,
    }
}

/// `a.b.c` at the beginning of these.
fn dotted(nodes: &[Node]) -> String {
    let mut name = String::new();
    for (at, node) in nodes.iter().enumerate() {
        match node {
            Node::Word(word, _) if at % 2 == 0 => name.push_str(word),
            Node::Symbol('.') if at % 2 == 1 => name.push('.'),
            _ => break,
        }
    }
    name
}
