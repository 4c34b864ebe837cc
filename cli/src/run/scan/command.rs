//! Commands that a program runs, put as a shell reads them.

use super::{
    call::{is_word, named, unnamed},
    code::Reader,
    nodes::{Node, split},
    roles::Role,
    value::{Base, Part, Value},
};

impl Reader<'_> {
    /// A command that is run: one text for a shell, or its words.
    pub(crate) fn command(&mut self, inner: &[Node]) {
        let parts = split(inner, |node| node.is(','));
        let Some(first) = parts.first() else { return };
        let words: Vec<&[Node]> = match unnamed(first) {
            [Node::Group('[', list)] => split(list, |node| node.is(',')),
            // `system("perl", "x.pl")`, `spawn("node", ["x.js"])`.
            _ if parts.iter().skip(1).any(|part| is_word(part)) => {
                let listed = parts[1..].iter().flat_map(|part| match part {
                    [Node::Group('[', list)] => split(list, |node| node.is(',')),
                    part if is_word(part) => vec![*part],
                    _ => Vec::new(),
                });
                std::iter::once(*first).chain(listed).collect()
            }
            _ => Vec::new(),
        };
        let before = std::mem::replace(&mut self.role, Role::Read);
        let place = self.command_place(inner);
        if words.is_empty() {
            let eval = self.any_of(unnamed(first));
            for value in &eval.values {
                match value.known() {
                    Some(text) => self.found.commands.push((format!("{place}{text}"), self.line)),
                    None => {
                        let text: String = value
                            .parts
                            .iter()
                            .map(|part| if let Part::Text(text) = part { text } else { "$_" })
                            .collect();
                        self.found.commands.push((format!("{place}{text}"), self.line));
                    }
                }
            }
        } else {
            self.command_words(&place, &words);
        }
        for part in parts.iter().skip(1).filter(|part| named(part).is_some()) {
            self.sequence_emitted(unnamed(part));
        }
        self.role = before;
    }

    /// The directory that a command is to run in (`cwd="sub"`, `{ cwd: "sub" }`), as a shell says it.
    fn command_place(&mut self, inner: &[Node]) -> String {
        let flat = inner.iter().flat_map(|node| match node {
            Node::Group('{', nested) => nested.as_slice(),
            node => std::slice::from_ref(node),
        });
        let flat: Vec<&Node> = flat.collect();
        let text = flat
            .windows(3)
            .find(|three| matches!(three[0].word(), Some("cwd" | "chdir")) && (three[1].is('=') || three[1].is(':')))
            .and_then(|three| three[2].plain());
        text.map(|text| format!("cd {} && ", shell_words::quote(text))).unwrap_or_default()
    }

    fn command_words(&mut self, place: &str, words: &[&[Node]]) {
        let mut line = Vec::new();
        for word in words {
            let eval = self.any_of(word);
            let known = eval.values.first().filter(|value| value.base == Base::Free).and_then(Value::known);
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
        self.found.commands.push((format!("{place}{}", line.join(" ")), self.line));
    }
}
