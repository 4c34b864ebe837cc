//! What the words of the command line name.

use super::{
    mention::{Mention, MentionKind},
    reading::Scan,
    value::Value,
};

impl Scan<'_> {
    /// What the languages call a script's arguments.
    pub(crate) fn given(&mut self, words: &[String]) {
        let values: Vec<Value> = words
            .iter()
            .filter(|word| !word.starts_with('-'))
            .map(|word| Value::text(word.as_str()))
            .collect();
        for name in ["argv", "ARGV", "@", "*"] {
            self.names.define_open(name, &values);
        }
        for (place, word) in words.iter().enumerate().take(9) {
            self.names.define_open(&(place + 1).to_string(), &[Value::text(word.as_str())]);
        }
    }

    /// An argument that a script expands.
    pub(crate) fn pattern(&mut self, pattern: &str) {
        let by = self.finder.scope.cwd.join("the command line");
        let mention = Mention {
            value: Value::text(pattern),
            how: MentionKind::Glob,
            is_weak: false,
            group: 0,
            stands_in: false,
            line: 1,
        };
        let new = self.finder.mention(&mention, &by, std::slice::from_ref(&self.finder.scope.cwd));
        self.new.extend(new);
        self.enqueue_new();
    }

    /// A program that is on the worker, with its words.
    pub(crate) fn command(&mut self, words: &[String]) {
        let text = shell_words::join(words);
        // Whatever it names, the current directory names it.
        let by = self
            .finder
            .scope
            .cwd
            .join(words.first().map_or("program", |word| word.rsplit('/').next().unwrap_or(word)));
        self.shell(&text, &by, 1);
        self.enqueue_new();
    }
}
