//! Calls: what functions and methods make of paths, and do with them.

use super::{
    code::Reader,
    eval::Eval,
    language::Language,
    mention::MentionKind,
    nodes::{Node, split},
    roles::{Fold, Role, fold, is_ignored_parameter, role},
    value::{Base, Part, Value},
};

impl Reader<'_> {
    pub(crate) fn call(&mut self, words: &[&str], inner: &[Node]) -> Eval {
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
    pub(crate) fn method(&mut self, receiver: Eval, object: &str, name: &str, inner: &[Node]) -> Eval {
        if receiver.values.is_empty() {
            return self.function(object, name, inner);
        }
        match name {
            "format" => {
                let before = std::mem::replace(&mut self.role, Role::Ignore);
                let fields: Vec<Eval> = split(inner, |node| node.is(','))
                    .iter()
                    .map(|part| self.any_of(unnamed(part)))
                    .collect();
                self.role = before;
                self.filled(receiver, &fields)
            }
            "resolve" | "absolute" | "expanduser" | "as_posix" | "to_s" | "to_path" | "realpath" | "toString" | "strip" | "trim"
            | "freeze" | "dup" | "as_uri" => {
                self.arguments(Role::Weak, inner);
                receiver
            }
            "joinpath" | "join" if !receiver.is_literal => {
                let mut all = receiver;
                for part in split(inner, |node| node.is(',')) {
                    let other = self.any_of(part);
                    all = all.with(self.opened(other), Value::join);
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
            // Several names in one text.
            "split" | "splitlines" | "lines" if receiver.is_literal && inner.len() <= 1 => {
                let separator = inner.first().and_then(Node::plain);
                let texts = receiver.values.iter().filter_map(Value::known);
                let names = texts.flat_map(|text| match separator {
                    Some(separator) if !separator.is_empty() => text.split(separator).map(str::trim).collect::<Vec<_>>(),
                    _ if name == "split" => text.split_whitespace().collect(),
                    _ => text.lines().map(str::trim).collect(),
                });
                let values = names.filter(|name| !name.is_empty()).map(Value::text).collect::<Vec<_>>();
                for value in values.iter().skip(super::value::MOST) {
                    self.emit(&Eval::of(vec![value.clone()]));
                }
                Eval::of(values.into_iter().take(super::value::MOST).collect())
            }
            "replace" | "sub" if receiver.values.iter().any(|value| value.known().is_some()) => {
                let texts: Vec<&str> = split(inner, |node| node.is(','))
                    .into_iter()
                    .filter_map(|part| part.first()?.plain())
                    .collect();
                let [from, to] = texts.as_slice() else { return Eval::unknown() };
                receiver.map(|value| match value.known() {
                    Some(text) => Value::of(value.base.clone(), vec![Part::Text(text.replace(from, to))]),
                    None => value.clone(),
                })
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
            _ => self.arguments_of(name, does, inner),
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
                Some(name) if value.base == Base::Free => self.module(name.to_owned(), false),
                // `path.join(__dirname, "x")`: also without its ending.
                Some(text) if self.language != Language::Python => {
                    if let Base::At(dir) = &value.base {
                        self.module(dir.join(text.trim_start_matches('/')).to_string_lossy().into_owned(), false);
                    } else {
                        self.module(format!("./{text}"), false);
                    }
                }
                Some(_) => self.mention(&Eval::of(vec![value.clone()]), &MentionKind::Read, false),
                None if self.language != Language::Python => self.mention(&Eval::of(vec![value.clone()]), &MentionKind::Read, false),
                None => {
                    if let Some(Part::Text(prefix)) = value.parts.first() {
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
            .rfind(|text| !text.contains(' '));
        let default = parts.iter().find(|part| part.len() > 2 && part[0].word() == Some("default"));
        let Some(name) = name.map(|name| name.trim_start_matches('-').replace('-', "_")) else {
            return;
        };
        let given = self.names.get("argv");
        self.names.define_open(&name, &given);
        if let Some(default) = default {
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
        let mut evals = evals.into_iter().map(|eval| Eval { is_literal: false, ..eval });
        match fold {
            Fold::Here => Eval::of(vec![Value::current()]),
            Fold::Join => evals
                .map(|eval| self.opened(eval))
                .reduce(|a, b| a.with(b, Value::join))
                .unwrap_or_default(),
            Fold::Concat => evals
                .map(|eval| self.opened(eval))
                .reduce(|a, b| a.with(b, Value::concat))
                .unwrap_or_default(),
            Fold::Parent => evals.next().unwrap_or_default().map(Value::parent),
            Fold::Default => evals.nth(1).unwrap_or_default(),
            Fold::Template => {
                let template = evals.next().unwrap_or_default();
                let fields = evals.collect::<Vec<_>>();
                self.filled(template, &fields)
            }
            Fold::Stem => evals.next().unwrap_or_default().map(|value| value.with_extension("")),
            Fold::Expand => {
                let first = evals.next().unwrap_or_default();
                match evals.next() {
                    Some(base) => base.with(first, Value::join),
                    None => first,
                }
            }
            Fold::Same => {
                let first = evals.next().unwrap_or_default();
                match evals.next() {
                    // `new URL("x", import.meta.url)`, `File.expand_path("x", __dir__)`, and `Path("a", "b")`.
                    Some(second) if !second.values.is_empty() => {
                        let is_base = second.values.iter().all(|value| value.base != Base::Free);
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
    pub(crate) fn arguments(&mut self, does: Role, inner: &[Node]) {
        self.arguments_of("", does, inner);
    }

    /// The same, of a function of this name.
    fn arguments_of(&mut self, function: &str, does: Role, inner: &[Node]) {
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
                    self.names.define_open(name, &eval.values);
                } else {
                    self.names.give(function, place - 1, &eval.values);
                }
                self.emit(eval);
            }
            self.line = line;
            self.role = before;
        }
    }
}

/// The parameter that an argument is for: `mode="w"`, `mode: "w"`, `mode => "w"`.
pub(crate) fn named(part: &[Node]) -> Option<&str> {
    match part {
        [Node::Word(name, _), Node::Symbol('=' | ':'), _, ..] => Some(name),
        _ => None,
    }
}

/// Whether an argument may be a word of a command: neither an option of the function, nor a function, nor an object.
pub(crate) fn is_word(part: &[Node]) -> bool {
    named(part).is_none()
        && matches!(part, [Node::Text(..) | Node::Word(..), ..] | [Node::Group('[', _)])
        && !part.iter().any(|node| node.is(':') || matches!(node, Node::Group('{', _)))
}

pub(crate) fn unnamed(part: &[Node]) -> &[Node] {
    if named(part).is_some() { &part[2..] } else { part }
}

/// The strings among arguments, also those that stand in braces.
pub(crate) fn plain_texts(inner: &[Node]) -> Vec<&str> {
    let mut texts = Vec::new();
    for node in inner {
        match node {
            Node::Group('{', nested) => texts.extend(nested.iter().filter_map(Node::plain)),
            // `flags` that are constants.
            Node::Word(word, _) if matches!(word.as_str(), "FILE_APPEND" | "LOCK_EX") => {
                texts.push(if word == "FILE_APPEND" { "a" } else { "" });
            }
            node => texts.extend(node.plain()),
        }
    }
    texts
}
