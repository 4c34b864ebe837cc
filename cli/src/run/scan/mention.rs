//! What the text of a file mentions: files, modules, and commands.

use super::value::Value;

/// How a file is mentioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MentionKind {
    /// What it holds may count.
    Read,
    /// It is written anew.
    Write,
    /// As a directory whose entries are listed.
    List,
    /// As a pattern for names.
    Glob,
    /// As the name, without its extension, of a file that keeps a program's state.
    State,
    /// As the value of this name, which nothing else uses as far as is seen.
    Define(String),
}

/// A mention of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) value: Value,
    pub(crate) how: MentionKind,
    /// It stands where texts mean other things too: only what looks like a path is one.
    pub(crate) is_weak: bool,
    /// The mentions of one expression that has one more to stand in, if none of them is here; 0: there is none.
    pub(crate) group: u32,
    /// It is that one.
    pub(crate) stands_in: bool,
    pub(crate) line: u32,
}

/// A mention of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, as the language writes it; of an f-string, what stands before its first gap.
    pub(crate) name: String,
    /// Whether the name goes on with what is known only when it runs.
    pub(crate) is_open: bool,
    /// How many dots stand before it (Python).
    pub(crate) level: usize,
    /// What is taken from it, which may be modules too (Python).
    pub(crate) members: Vec<String>,
    pub(crate) line: u32,
}

/// All that a source mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    pub(crate) files: Vec<Mention>,
    pub(crate) modules: Vec<Module>,
    /// Commands, as a shell reads them.
    pub(crate) commands: Vec<(String, u32)>,
    /// Directories and archives in which modules are searched for.
    pub(crate) search: Vec<Value>,
}
