//! What a scan found, why, and how much that may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

/// How much is sent without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Why a file goes along.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IncludeReason {
    /// This file names it.
    Named(String),
    /// This file imports it.
    Imported(String),
    /// It stands in this directory, which is meant as a whole.
    In(String),
    /// It matches this pattern.
    Matches(String),
}

impl fmt::Display for IncludeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(by) => write!(f, "named in {by}"),
            Self::Imported(by) => write!(f, "imported by {by}"),
            Self::In(dir) => write!(f, "in {dir}"),
            Self::Matches(pattern) => write!(f, "as {}", pattern.replace("**/", "")),
        }
    }
}

/// Something of here that was not sent, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// The local path.
    pub(crate) path: PathBuf,
    /// A sentence.
    pub(crate) text: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files, by where they are, and why each goes along.
    pub(crate) files: BTreeMap<PathBuf, IncludeReason>,
    /// Directories that are to be there, with nothing in them.
    pub(crate) dirs: BTreeSet<PathBuf>,
    /// What is here and was not sent, as the user should know before the job runs.
    pub(crate) notes: Vec<Note>,
    /// Why the current directory, which is meant as a whole, was not sent.
    pub(crate) too_large: Option<String>,
    pub(crate) bytes: u64,
}
