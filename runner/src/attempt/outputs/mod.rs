//! Collecting what an attempt made: every file in the work directory that was not laid there, or was changed; and which of those that
//! were laid are gone.

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
use crate::{errors::chain, inputs::Laid};

/// Sentences on what could not be kept; of more, only the number is told.
const SENTENCES: usize = 50;
/// The most bytes that the lists of outputs, links and removed inputs have together: the whole must be read again in one piece of 64 MiB.
const LISTED: usize = 56 << 20;
/// What an output takes up in its list besides its path, in bytes.
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
    /// The thread that looked for them.
    #[error("cannot look for the job's outputs: the runner failed at it")]
    Look,
}

/// What stands in a work directory after the command's end.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The work directory.
    top: Option<Arc<OwnedFd>>,
    /// How many bytes the lists have already.
    listed: usize,
    /// Files that are new, or may have been changed.
    candidates: Vec<Candidate>,
    /// Links that are new, and stay inside.
    links: Vec<Link>,
    /// What was laid and is not there any more, in order.
    deleted: Vec<RelPath>,
    /// What is there and cannot be kept.
    left_out: LeftOut,
    /// The patterns that named nothing.
    unmatched: Vec<String>,
}

/// What of an attempt was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The files that the command made or changed.
    pub(crate) outputs: Vec<OutputFile>,
    /// The links that it made.
    pub(crate) links: Vec<Link>,
    /// What was laid and is not there any more.
    pub(crate) deleted: Vec<RelPath>,
    /// What is there and could not be kept, a sentence each.
    pub(crate) left_out: Vec<String>,
    /// The patterns that named nothing.
    pub(crate) unmatched: Vec<String>,
}

impl Kept {
    /// All that is to be said of it, a sentence each.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = String> {
        let unmatched = self.unmatched.iter().map(|pattern| unmatched(pattern));
        self.left_out.iter().cloned().chain(unmatched)
    }
}

/// What is said of a pattern that named nothing.
fn unmatched(pattern: &str) -> String {
    format!("no file is named by the output pattern `{}`", pattern.escape_debug())
}

/// Sentences on what cannot be kept, the first of them.
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
    laid: Option<Laid>,
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

impl Found {
    /// Whether one more path with so many bytes beside it can be listed; it counts then.
    fn has_room(&mut self, path: &str, beside: usize) -> bool {
        let more = in_json(path) + beside + 4;
        let fits = self.listed + more <= LISTED;
        if fits {
            self.listed += more;
        }
        fits
    }

    /// What stands in a work directory that nothing was ever put into.
    pub(crate) fn nothing(wanted: Option<&[String]>) -> Self {
        Self {
            unmatched: wanted.unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }
}

/// What is said of what was mounted in a work directory.
const MOUNTED: &str = "something is mounted there, and what is mounted is not kept";
/// What is said of an output that would make the list of them too long.
const TOO_MANY: &str = "too many outputs to be listed; pack them into an archive";

/// A path that a job chose, as it may be shown on a terminal: nothing in it moves the cursor or begins a line.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}
