//! Collecting an attempt's outputs: every file in the work directory that was not staged there or was changed, and which of the staged
//! inputs were removed.

mod find;
mod link;
mod removed;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use bus::{
    output::manifest::OutputFile,
    spec::{RelPath, tree::Link},
};

pub(crate) use self::find::find;
use crate::{errors::chain, inputs::StagedFile};

/// The most notices on files that could not be stored; of more, only the number is given.
const SENTENCES: usize = 50;
/// The most bytes that the lists of outputs, links and removed inputs have together: the whole must be read again in one piece of 64 MiB.
const LISTED: usize = 56 << 20;
/// What an output takes in the manifest in addition to its path, in bytes.
const ENTRY: usize = 192;

/// Why the outputs could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store.
    #[error("cannot store the output {path}: {}", chain(source))]
    Store {
        /// The output.
        path: RelPath,
        /// What happened.
        source: store::Error,
    },
    /// The thread that looked for the outputs failed.
    #[error("cannot look for the job's outputs: the runner failed at it")]
    Look,
}

/// The outputs that were found in a work directory after the command's end.
#[derive(Debug, Default)]
pub(crate) struct FoundOutputs {
    /// The work directory.
    top: Option<Arc<OwnedFd>>,
    /// The bytes of the lists so far.
    listed: usize,
    /// Files that are new, or may have been changed.
    candidates: Vec<Candidate>,
    /// Links that are new, and stay inside.
    links: Vec<Link>,
    /// The inputs that were removed, in order.
    deleted: Vec<RelPath>,
    /// Files that cannot be stored.
    left_out: LeftOut,
    /// The patterns that matched nothing.
    unmatched: Vec<String>,
}

/// The outputs of an attempt that were stored.
#[derive(Debug, Default)]
pub(crate) struct StoredOutputs {
    /// The files that the command made or changed.
    pub(crate) outputs: Vec<OutputFile>,
    /// The links that it made.
    pub(crate) links: Vec<Link>,
    /// The inputs that were removed.
    pub(crate) deleted: Vec<RelPath>,
    /// Files that could not be stored, a sentence each.
    pub(crate) left_out: Vec<String>,
    /// The patterns that matched nothing.
    pub(crate) unmatched: Vec<String>,
}

impl StoredOutputs {
    /// All notices for the user, a sentence each.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = String> {
        let unmatched = self.unmatched.iter().map(|pattern| unmatched(pattern));
        self.left_out.iter().cloned().chain(unmatched)
    }
}

/// The notice on a pattern that matched nothing.
fn unmatched(pattern: &str) -> String {
    format!("the output pattern `{}` matches no file", pattern.escape_debug())
}

/// The first notices on files that cannot be stored.
#[derive(Debug, Default)]
struct LeftOut {
    sentences: Vec<String>,
    more: usize,
}

impl LeftOut {
    fn push(&mut self, sentence: String) {
        if self.sentences.len() < SENTENCES {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }

    fn into_sentences(mut self) -> Vec<String> {
        if self.more > 0 {
            self.sentences.push(format!("and {} more could not be kept", self.more));
        }
        self.sentences
    }
}

#[derive(Debug)]
struct Candidate {
    path: RelPath,
    /// The file itself, by its path in the work directory.
    source: PathBuf,
    mode: u32,
    staged: Option<StagedFile>,
}

/// How many bytes a text takes up in JSON, at most.
fn in_json(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            ..0x20 => 6,
            _ => 1,
        })
        .sum()
}

impl FoundOutputs {
    /// Whether one more path with so many additional bytes can be listed; it counts then.
    fn has_room(&mut self, path: &str, beside: usize) -> bool {
        let more = in_json(path) + beside + 4;
        let fits = self.listed + more <= LISTED;
        if fits {
            self.listed += more;
        }
        fits
    }

    /// The outputs of a work directory that never held a file.
    pub(crate) fn nothing(wanted: Option<&[String]>) -> Self {
        Self {
            unmatched: wanted.unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }
}

/// The notice on a mount in a work directory.
const MOUNTED: &str = "something is mounted there, and what is mounted is not kept";
/// The notice on an output that would make the manifest too long.
const TOO_MANY: &str = "too many outputs to be listed; pack them into an archive";

/// A path that a job chose, as it may be shown on a terminal: nothing in it moves the cursor or begins a line.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}
