//! Collecting what an attempt made: every file in the work directory that was not laid there, or was changed; and which of those that
//! were laid are gone.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use bus::{
    files::{self, Files},
    manifest::OutputFile,
    outputs::Patterns,
    spec::RelPath,
    tree::Link,
};
use futures::{StreamExt as _, stream};
use walkdir::WalkDir;

use crate::{
    executor::docker::WORK,
    gone::Gone,
    inputs::{Laid, Layout},
    patience::patiently,
    stage::chain,
};

/// Files that are stored at once.
const AT_ONCE: usize = 16;
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
        source: files::Error,
    },
    /// The thread that looked for them.
    #[error("cannot look for the job's outputs: the runner failed at it")]
    Look,
}

/// What stands in a work directory after the command's end.
#[derive(Debug, Default)]
pub(crate) struct Found {
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
    source: PathBuf,
    mode: u32,
    laid: Option<Laid>,
}

/// Looks through a work directory for what these patterns name, or for everything, and for what is gone. A directory that the command
/// deleted holds nothing.
#[must_use]
pub(crate) fn find(work: &Path, laid: &Layout, wanted: Option<&[String]>) -> Found {
    let mut found = Found::default();
    let mut patterns = wanted.map(Patterns::new);
    if patterns.as_ref().is_some_and(Patterns::is_empty) {
        return found;
    }
    let dirs = laid.all_dirs();
    let mut gone = Gone::of(laid, &dirs);
    for entry in WalkDir::new(work).sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                gone.unknown_below(error.path().and_then(|path| path.strip_prefix(work).ok()));
                if error.io_error().is_none_or(|error| error.kind() != io::ErrorKind::NotFound) {
                    found.left_out.push(format!("cannot look for outputs: {error}"));
                }
                continue;
            }
        };
        let Ok(relative) = entry.path().strip_prefix(work) else { continue };
        if relative.as_os_str().is_empty() {
            continue;
        }
        gone.is_there(relative, entry.file_type().is_dir());
        let wanted_now = match &mut patterns {
            Some(patterns) if entry.file_type().is_dir() => patterns.name(relative),
            Some(patterns) => patterns.note(relative),
            None => true,
        };
        if wanted_now {
            look(&mut found, work, laid, &entry);
        }
    }
    let removed = gone.removed(|path| patterns.as_mut().is_none_or(|patterns| patterns.note(path)));
    if removed.iter().all(|path| found.has_room(path.as_str(), 0)) {
        found.deleted = removed;
    } else {
        let count = removed.len();
        found.left_out.push(format!(
            "{count} inputs were removed, more than can be listed; none of them is removed where they came from"
        ));
    }
    found.unmatched = patterns.as_ref().map(Patterns::unmatched).unwrap_or_default();
    found
}

/// A link as it may be kept: one that says a relative path to what is inside. It was laid there, where its target is known as laid.
fn as_link(relative: &Path, entry: &walkdir::DirEntry, work: &Path) -> Option<Link> {
    let path = relative.to_str()?.parse().ok()?;
    let target = std::fs::read_link(entry.path()).ok()?;
    let target = inside(relative, &target, work).unwrap_or(target).to_str()?.to_owned();
    let link = Link { path, target };
    link.leads_to().is_some().then_some(link)
}

/// The relative target of a link that says an absolute path below the work directory, as its job sees that: in a container, or on
/// this machine. Nothing where there is no such thing.
fn inside(relative: &Path, target: &Path, work: &Path) -> Option<PathBuf> {
    let real = std::fs::canonicalize(work).ok()?;
    let roots = [real.as_path(), work, Path::new(WORK)];
    let below = roots.into_iter().find_map(|root| target.strip_prefix(root).ok())?;
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || below.as_os_str().is_empty() || std::fs::symlink_metadata(work.join(below)).is_err() {
        return None;
    }
    let up = relative.components().skip(1).map(|_| Component::ParentDir);
    Some(up.chain(below.components()).collect())
}

/// A path that a job chose, as it may be shown on a terminal: nothing in it moves the cursor or begins a line.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

fn look(found: &mut Found, work: &Path, laid: &Layout, entry: &walkdir::DirEntry) {
    let Ok(relative) = entry.path().strip_prefix(work) else { return };
    let leave_out = |found: &mut Found, why: &str| found.left_out.push(format!("{}: {why}", shown(relative)));
    let source = if entry.file_type().is_symlink() {
        // A link to the job's packages, which no command made.
        if laid.links.get(relative).is_some_and(String::is_empty) {
            return;
        }
        if let Some(link) = as_link(relative, entry, work) {
            if laid.links.get(relative) != Some(&link.target) {
                if found.has_room(link.path.as_str(), ENTRY + in_json(&link.target)) {
                    found.links.push(link);
                } else {
                    found.left_out.push(format!("{}: {TOO_MANY}", shown(relative)));
                }
            }
            return;
        }
        // A link is followed while it stays inside; one that leads out would carry the worker's own files away.
        match std::fs::canonicalize(entry.path()).and_then(|target| Ok((target, std::fs::canonicalize(work)?))) {
            Ok((target, work)) if target.starts_with(&work) && target.is_file() => target,
            Ok((target, work)) if target.starts_with(&work) => return,
            Ok(_) => return leave_out(found, "a link that leads out of the work directory is not kept"),
            Err(_) => return leave_out(found, "a link that leads nowhere is not kept"),
        }
    } else if entry.file_type().is_file() {
        entry.path().to_owned()
    } else {
        if !entry.file_type().is_dir() {
            leave_out(found, "neither a file nor a directory");
        }
        return;
    };
    let Some(path) = relative.to_str().and_then(|path| path.parse::<RelPath>().ok()) else {
        return leave_out(found, "a name that is not UTF-8 cannot be kept");
    };
    let Ok(metadata) = std::fs::metadata(&source) else { return };
    let laid = laid.files.get(relative).copied();
    if laid.is_some_and(|laid| laid.is_untouched(&metadata)) {
        return;
    }
    let mode = metadata.permissions().mode() & 0o777;
    if !found.has_room(path.as_str(), ENTRY) {
        return found.left_out.push(format!("{path}: {TOO_MANY}"));
    }
    found.candidates.push(Candidate { path, source, mode, laid });
}

/// What became of a candidate.
enum Stored {
    Output(OutputFile),
    /// It is what was laid there, at most touched.
    Same,
    /// It cannot be read.
    Unreadable(String),
}

impl Candidate {
    async fn store(self, files: &Files) -> Result<Stored, Error> {
        let Self { path, source, mode, laid } = self;
        match patiently("store an output", || files.put_file(&source)).await {
            Ok((sha256, _)) if laid.is_some_and(|laid| laid.sha256 == sha256 && laid.has_mode(mode)) => Ok(Stored::Same),
            Ok((sha256, size)) => Ok(Stored::Output(OutputFile {
                path,
                sha256,
                size,
                executable: mode & 0o111 != 0,
                mode: (!matches!(mode, 0o644 | 0o755)).then_some(mode),
            })),
            // It keeps no other output from its place.
            Err(error @ (files::Error::Io { .. } | files::Error::Changed { .. })) => {
                let why = match &error {
                    files::Error::Io { source, .. } => format!("it cannot be read: {source}"),
                    _ => "something still wrote to it".to_owned(),
                };
                Ok(Stored::Unreadable(format!("{path}: {why}")))
            }
            Err(source) => Err(Error::Store { path, source }),
        }
    }
}

/// What is said of an output that would make the list of them too long.
const TOO_MANY: &str = "too many outputs to be listed; pack them into an archive";

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

    /// Stores every output that can be read, and lists them by path. A file that was only touched is not an output.
    ///
    /// # Errors
    /// If the store does not take one.
    pub(crate) async fn store(self, files: &Files) -> Result<Kept, Error> {
        let mut kept = Kept {
            links: self.links,
            deleted: self.deleted,
            unmatched: self.unmatched,
            ..Kept::default()
        };
        let mut left_out = self.left_out;
        let storing: Vec<_> = self.candidates.into_iter().map(|candidate| candidate.store(files)).collect();
        let mut storing = stream::iter(storing).buffered(AT_ONCE);
        while let Some(stored) = storing.next().await {
            match stored? {
                Stored::Output(output) => kept.outputs.push(output),
                Stored::Same => {}
                Stored::Unreadable(sentence) => left_out.push(sentence),
            }
        }
        kept.left_out = left_out.into_sentences();
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, os::unix::fs::symlink};

    use super::*;

    fn layout(files: &[&str], links: &[(&str, &str)], dirs: &[&str]) -> Layout {
        let laid = Laid {
            sha256: bus::ids::Digest::of(b""),
            size: 0,
            modified: None,
            mode: None,
            stamp: None,
        };
        Layout {
            files: files.iter().map(|path| (PathBuf::from(path), laid)).collect::<HashMap<_, _>>(),
            links: links.iter().map(|(path, to)| (PathBuf::from(path), (*to).to_owned())).collect(),
            dirs: dirs.iter().map(PathBuf::from).collect(),
        }
    }

    fn deleted(found: &Found) -> Vec<&str> {
        found.deleted.iter().map(RelPath::as_str).collect()
    }

    #[test]
    fn what_was_laid_and_is_gone_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let work = dir.path();
        // `left` is as it was; `turned` became a directory, and `linked` a link; of `part` one file is gone.
        for path in ["left", "turned/x", "part/stays"] {
            let path = work.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, "").expect("a file");
        }
        symlink("left", work.join("linked")).expect("a link");
        let laid = layout(
            &["left", "turned", "linked", "part/stays", "part/gone", "inbox/x"],
            &[("old-link", "left"), ("node_modules", "")],
            &["empty/in"],
        );
        let found = find(work, &laid, None);
        assert_eq!(
            deleted(&found),
            ["empty", "empty/in", "inbox", "inbox/x", "old-link", "part/gone", "turned"]
        );
        let only = ["part".to_owned(), "*.csv".to_owned()];
        let found = find(work, &laid, Some(&only));
        assert_eq!(
            (deleted(&found), found.unmatched.clone()),
            (vec!["part/gone"], vec!["*.csv".to_owned()])
        );
        assert!(deleted(&find(work, &laid, Some(&[]))).is_empty());
    }

    #[test]
    fn a_work_directory_that_is_gone_removes_nothing_where_its_files_came_from() {
        let dir = tempfile::tempdir().expect("a directory");
        let laid = layout(&["a", "d/b"], &[], &[]);
        assert!(deleted(&find(&dir.path().join("gone"), &laid, None)).is_empty());
    }

    #[test]
    fn the_list_stays_as_long_as_it_can_be_read_again() {
        let mut found = Found::default();
        let path = "\u{1}".repeat(255);
        let mut listed = 0;
        while found.has_room(&path, ENTRY) {
            listed += 1;
        }
        let output = OutputFile {
            path: path.parse().expect("a path"),
            sha256: bus::ids::Digest::of(b""),
            size: u64::MAX,
            executable: true,
            mode: Some(0o777),
        };
        let one = serde_json::to_vec(&output).expect("JSON").len() + 1;
        assert!(listed * one <= 64 << 20 && listed * one > 48 << 20, "{listed} of {one} bytes");
    }

    #[tokio::test]
    async fn an_output_that_cannot_be_read_keeps_no_other_from_the_store() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("file://{}", dir.path().join("store").display());
        let files = Files::open(&url.parse().expect("a store"), None).await.expect("a store");
        let work = dir.path().join("work");
        fs::create_dir(&work).expect("a directory");
        fs::write(work.join("a"), "a").expect("a file");
        fs::write(work.join("b"), "b").expect("a file");
        let found = find(&work, &Layout::default(), None);
        fs::remove_file(work.join("a")).expect("it is there");
        let kept = found.store(&files).await.expect("the rest is stored");
        assert_eq!(kept.outputs.iter().map(|output| output.path.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(kept.left_out[0].starts_with("a: it cannot be read: "), "{:?}", kept.left_out);
    }

    #[test]
    fn sentences_are_bounded() {
        let mut left_out = LeftOut::default();
        (0..1_000).for_each(|number| left_out.push(number.to_string()));
        let sentences = left_out.into_sentences();
        assert_eq!(sentences.len(), SENTENCES + 1);
        assert_eq!(sentences.last().map(String::as_str), Some("and 950 more could not be kept"));
    }
}
