//! What stands behind a value: its members, further calls, and places of a list.

use super::{code::Reader, eval::Eval, language::Language, nodes::Node, roles::Role, value::Value};

impl Reader<'_> {
    /// Members, further calls, and places of a list, behind a value.
    pub(crate) fn postfix(&mut self, mut eval: Eval, nodes: &[Node], mut at: usize) -> (Eval, usize) {
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
                        "parent" | "dirname" => eval.map(Value::parent),
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
        if eval.is_variable
            && eval.names.first().is_some_and(|name| name == "path")
            && self.language == Language::Python
            && place == Some("0")
        {
            // `sys.path[0]`
            return Eval::of(vec![Value::at(self.dir)]);
        }
        if let Some(key) = inner.first().and_then(Node::plain).filter(|_| inner.len() == 1) {
            let values = self.names.get(key);
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
}
