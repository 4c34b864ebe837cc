//! Which files of here a script needs, found before it runs: its source is read, never run.
//!
//! A program's text says by name most of what it opens. The scan reads it as far as constants, joins and templates go, follows what it
//! imports and the commands that it starts, and looks up what is mentioned: from the current directory, the script's, and that of the
//! file that mentions it. It finds only what belongs to the project (`ground`), holds back what looks like a secret, and keeps within
//! bounds. What is clearly written anew is not sent.
//!
//! `code` and `shell` are pure: text to mentions. `finder` looks them up on the disk.

mod arguments;
mod call;
mod code;
mod collect;
mod command;
mod eval;
mod expression;
mod finder;
mod found;
mod git;
mod language;
mod lex;
mod members;
mod mention;
mod modules;
mod names;
mod nodes;
mod notes;
mod parallel;
mod pattern;
mod reading;
mod regular;
mod role_names;
mod roles;
mod scope;
mod secret;
mod shell;
mod shell_expansion;
mod shell_lex;
mod shell_programs;
mod skipped;
mod strings;
mod symbols;
mod text;
mod unread;
mod value;
mod variables;

use std::path::{Path, PathBuf};

use globset::GlobSet;

pub(crate) use self::{
    found::{Bounds, Found, IncludeReason, Note},
    git::{can_be_asked, tracked, walk_of},
    scope::{ScanScope, is_of_project},
    secret::is_named_as_secret,
    shell::works_on_project,
};
use self::{language::Language, reading::Scan};

/// What is run.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// The script, and the runtime that runs it, if it is known.
    pub(crate) script: Option<(PathBuf, Option<String>)>,
    /// Arguments that are files.
    pub(crate) arguments: Vec<PathBuf>,
    /// Whether there are several runs, of which the arguments are.
    pub(crate) is_batch: bool,
    /// The script's arguments.
    pub(crate) words: Vec<String>,
    /// Arguments that are patterns, which the script expands itself.
    pub(crate) patterns: Vec<String>,
    /// A program's words, where no script is sent.
    pub(crate) command: Vec<String>,
}

/// Whether a file is source code.
pub(crate) fn is_source(path: &Path) -> bool {
    Language::of(path, "") != Language::Text
}

/// Finds what a run needs.
pub(crate) fn scan(scope: &ScanScope, start: &Start, exclude: &GlobSet, bounds: Bounds) -> Found {
    let mut scan = Scan::new(scope, exclude, bounds);
    if let Some((script, runtime)) = &start.script {
        let language = runtime.as_deref().and_then(Language::of_runtime);
        scan.enqueue(script, language, true);
    }
    for argument in &start.arguments {
        scan.enqueue(argument, None, false);
    }
    // Of many runs, each has arguments of its own.
    if !start.is_batch {
        scan.given(&start.words);
    }
    for pattern in &start.patterns {
        scan.pattern(pattern);
    }
    if !start.command.is_empty() {
        scan.command(&start.command);
    }
    scan.run();
    let mut found = scan.finder.found;
    // What the command line names goes along by that. Of many runs, the files of each may be read by the others.
    let named = start.arguments.iter().filter(|_| !start.is_batch);
    for own in start.script.iter().map(|(script, _)| script).chain(named) {
        found.files.remove(own);
    }
    found
}

#[cfg(test)]
mod tests;
