//! One input file of a plan, and how its path and its errors are written.

use std::{
    collections::HashMap,
    fs::Metadata,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bus::spec::RelPath;
use client::Hashed;

use crate::failure::usage;

/// An input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    /// The local path.
    pub(crate) source: PathBuf,
    /// The path in the job's directory.
    pub(crate) path: RelPath,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its size in bytes when it was found.
    pub(crate) size: u64,
}

/// The names that a word may give to a file: all of it, or what stands behind `--option=` or `key=`, or behind `@` (a file of arguments).
pub(crate) fn named(word: &str) -> impl Iterator<Item = &str> {
    let value = word.split_once('=').map(|(_, value)| value);
    let listed = word.strip_prefix('@').or_else(|| value?.strip_prefix('@'));
    std::iter::once(word).chain(value).chain(listed)
}

pub(crate) fn parsed(path: &str) -> anyhow::Result<RelPath> {
    path.parse()
        .map_err(|error| usage(format!("cannot send {}: {error}", path.escape_debug())))
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> anyhow::Error {
    usage(format!(
        "cannot read {}: {}; make it readable, or leave it out with --exclude",
        path.display(),
        cause(error)
    ))
}

impl Input {
    /// Whether it may be executed.
    pub(crate) const fn executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

pub(crate) fn mode(meta: &Metadata) -> u32 {
    meta.permissions().mode() & 0o777
}

/// The permission bits that a file goes along with. Root reads and writes here whatever the bits say; the script may run as somebody else
/// there, whom they bind, and is to have the same rights. Bits that the job leaves so are left alone here.
pub(crate) const fn sent_mode(mode: u32, is_root: bool) -> u32 {
    if is_root { mode | 0o600 } else { mode }
}

/// The cause of an error of the operating system, as the style of our sentences has it.
pub(crate) fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// The hash of an input file.
///
/// # Errors
/// If the file was not hashed; the error names it.
pub(crate) fn hashed_of<'a>(hashed: &'a HashMap<PathBuf, Hashed>, source: &Path) -> anyhow::Result<&'a Hashed> {
    hashed
        .get(source)
        .with_context(|| format!("cannot send {}: its content was not read; run again", source.display()))
}
