//! Collecting what an attempt made: every file in the work directory that was not laid there, or was changed; and which of those that
//! were laid are gone.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use bus::{
    output::{manifest::OutputFile, patterns::Patterns},
    spec::{RelPath, tree::Link},
};
use futures::{StreamExt as _, stream};
use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};
use store::{Files, Holes};

use crate::{
    attempt::{
        inputs::{Laid, Layout},
        removed::Gone,
        stage::chain,
    },
    beneath::{self, Seen, Stop, Walk},
    executor::docker::WORK,
    patience::patiently,
};

/// Files that are stored at once.
const AT_ONCE: usize = 16;
/// Sentences on what could not be kept; of more, only the number is told.
const SENTENCES: usize = 50;
/// The most bytes that the lists of outputs, links and removed inputs have together: the whole must be read again in one piece of 64 MiB.
const LISTED: usize = 56 << 20;
/// What an output takes up in its list besides its path, in bytes.
const ENTRY: usize = 192;

/// The most bytes of holes that the outputs of an attempt may have together: they are hashed and stored as zeros, about a minute of work.
const HOLES: u64 = 64 << 30;

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

/// Looks through a work directory for what these patterns name, or for everything, and for what is gone. A directory that the command
/// deleted holds nothing, and neither does one on which something is mounted: that is not the job's to give away.
#[must_use]
pub(crate) fn find(work: &Path, laid: &Layout, wanted: Option<&[String]>, stop: &Stop) -> Found {
    let mut found = Found::default();
    let mut patterns = wanted.map(Patterns::new);
    if patterns.as_ref().is_some_and(Patterns::is_empty) {
        return found;
    }
    let dirs = laid.all_dirs();
    let mut gone = Gone::of(laid, &dirs);
    match open_work(work) {
        Ok(top) => {
            let top = Arc::new(top);
            found.top = Some(Arc::clone(&top));
            for seen in Walk::new(top, stop.clone()) {
                consider(&mut found, work, laid, (&mut gone, &mut patterns), seen);
            }
        }
        Err(errno) => unreadable(&mut found, &mut gone, Path::new(""), errno),
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

/// Opens a work directory by the attempt's own, so that nothing is opened that was mounted on either.
fn open_work(work: &Path) -> rustix::io::Result<OwnedFd> {
    let root = work.parent().ok_or(Errno::INVAL)?;
    let base = root.parent().ok_or(Errno::INVAL)?;
    let base = std::fs::File::open(base).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let relative = work.strip_prefix(root.parent().unwrap_or(root)).map_err(|_| Errno::INVAL)?;
    beneath::directory(base, relative)
}

/// Takes one thing into account that the walk came by.
fn consider(found: &mut Found, work: &Path, laid: &Layout, (gone, patterns): (&mut Gone<'_>, &mut Option<Patterns>), seen: Seen) {
    match seen {
        Seen::Entry(relative, stat) => {
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            gone.is_there(&relative, is_dir);
            let wanted_now = match patterns {
                Some(patterns) if is_dir => patterns.name(&relative),
                Some(patterns) => patterns.note(&relative),
                None => true,
            };
            if wanted_now {
                look(found, work, laid, &relative, &stat);
            }
        }
        Seen::Unreadable(path, errno) => unreadable(found, gone, &path, errno),
        Seen::TooMuch(path) => {
            gone.unknown_below(Some(&path));
            let why = "what is in it is too deep, or too much, to be listed; pack it into an archive";
            found.left_out.push(format!("{}: {why}", shown(&path)));
        }
    }
}

/// Nobody can tell what is below this path.
fn unreadable(found: &mut Found, gone: &mut Gone<'_>, path: &Path, errno: Errno) {
    gone.unknown_below(Some(path));
    let shown = if path.as_os_str().is_empty() { ".".to_owned() } else { shown(path) };
    match errno {
        Errno::NOENT => {}
        Errno::XDEV => found.left_out.push(format!("{shown}: {MOUNTED}")),
        errno => found.left_out.push(format!("cannot look for outputs in {shown}: {errno}")),
    }
}

/// A link as it may be kept: one that says a relative path to what is inside. It was laid there, where its target is known as laid.
fn as_link(relative: &Path, work: &Path) -> Option<Link> {
    let path = relative.to_str()?.parse().ok()?;
    let target = std::fs::read_link(work.join(relative)).ok()?;
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

fn look(found: &mut Found, work: &Path, laid: &Layout, relative: &Path, stat: &Stat) {
    let leave_out = |found: &mut Found, why: &str| found.left_out.push(format!("{}: {why}", shown(relative)));
    let (source, stat) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return,
        FileType::RegularFile => (relative.to_owned(), *stat),
        FileType::Symlink => match look_at_link(found, work, laid, relative) {
            Some(target) => target,
            None => return,
        },
        _ => return leave_out(found, "neither a file nor a directory"),
    };
    let Some(path) = relative.to_str().and_then(|path| path.parse::<RelPath>().ok()) else {
        return leave_out(found, "a name that is not UTF-8, or too long, cannot be kept");
    };
    let laid = laid.files.get(relative).copied();
    if laid.is_some_and(|laid| laid.is_untouched(&stat)) {
        return;
    }
    let mode = stat.st_mode & 0o777;
    if !found.has_room(path.as_str(), ENTRY) {
        return found.left_out.push(format!("{path}: {TOO_MANY}"));
    }
    found.candidates.push(Candidate { path, source, mode, laid });
}

/// Keeps a link as such where it may be one. Otherwise it is followed while it stays inside: one that leads out would carry the worker's
/// own files away. Returns the file that it leads to, by its path in the work directory.
fn look_at_link(found: &mut Found, work: &Path, laid: &Layout, relative: &Path) -> Option<(PathBuf, Stat)> {
    // A link to the job's packages, which no command made.
    if laid.links.get(relative).is_some_and(String::is_empty) {
        return None;
    }
    if let Some(link) = as_link(relative, work) {
        if laid.links.get(relative) != Some(&link.target) {
            if found.has_room(link.path.as_str(), ENTRY + in_json(&link.target)) {
                found.links.push(link);
            } else {
                found.left_out.push(format!("{}: {TOO_MANY}", shown(relative)));
            }
        }
        return None;
    }
    let mut leave_out = |why: &str| found.left_out.push(format!("{}: {why}", shown(relative)));
    let real = std::fs::canonicalize(work.join(relative)).and_then(|target| Ok((target, std::fs::canonicalize(work)?)));
    let Ok((target, work)) = real else {
        leave_out("a link that leads nowhere is not kept");
        return None;
    };
    let Ok(below) = target.strip_prefix(&work) else {
        leave_out("a link that leads out of the work directory is not kept");
        return None;
    };
    let stat = rustix::fs::lstat(&target).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    is_file.then(|| (below.to_owned(), stat))
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
    async fn store(self, files: &Files, top: Option<Arc<OwnedFd>>, holes: &Holes) -> Result<Stored, Error> {
        let Self { path, source, mode, laid } = self;
        let put = || async {
            let (top, relative) = (top.clone(), source.clone());
            // Opened when it is its turn, so that no more are open than are stored.
            let opened = tokio::task::spawn_blocking(move || {
                let top = top.ok_or(Errno::NOENT)?;
                beneath::file(&*top, &relative).map_err(io::Error::from)
            });
            let opened = opened.await.unwrap_or_else(|error| Err(error.into()));
            let file = opened.map_err(|error| store::Error::Io {
                doing: "read",
                path: source.clone(),
                source: error,
            })?;
            files.put_opened(file, &source, holes).await
        };
        match patiently("store an output", put).await {
            Ok((sha256, _)) if laid.is_some_and(|laid| laid.sha256 == sha256 && laid.has_mode(mode)) => Ok(Stored::Same),
            Ok((sha256, size)) => Ok(Stored::Output(OutputFile {
                path,
                sha256,
                size,
                executable: mode & 0o111 != 0,
                mode: (!matches!(mode, 0o644 | 0o755)).then_some(mode),
            })),
            // It keeps no other output from its place.
            Err(error) => match not_kept(&error) {
                Some(why) => Ok(Stored::Unreadable(format!("{path}: {why}"))),
                None => Err(Error::Store { path, source: error }),
            },
        }
    }
}

/// Why an output by itself is not kept, if that is so, and no other need be lost by it.
fn not_kept(error: &store::Error) -> Option<String> {
    Some(match error {
        store::Error::Io { source, .. } if Errno::from_io_error(source) == Some(Errno::XDEV) => MOUNTED.to_owned(),
        store::Error::Io { source, .. } => format!("it cannot be read: {source}"),
        store::Error::Changed { .. } => "something still wrote to it".to_owned(),
        store::Error::Holes { size, max, .. } => format!(
            "it is {} GiB, nearly all of it holes, which are stored as zeros; a job's outputs may have {} GiB of them. Pack it              (`tar -cSf`), or shorten it",
            size >> 30,
            max >> 30
        ),
        _ => return None,
    })
}

/// What is said of what was mounted in a work directory.
const MOUNTED: &str = "something is mounted there, and what is mounted is not kept";
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
        let (top, holes) = (self.top, Holes::at_most(HOLES));
        let storing = self
            .candidates
            .into_iter()
            .map(|candidate| candidate.store(files, top.clone(), &holes));
        let storing: Vec<_> = storing.collect();
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
        let found = find(work, &laid, None, &Stop::default());
        assert_eq!(
            deleted(&found),
            ["empty", "empty/in", "inbox", "inbox/x", "old-link", "part/gone", "turned"]
        );
        let only = ["part".to_owned(), "*.csv".to_owned()];
        let found = find(work, &laid, Some(&only), &Stop::default());
        assert_eq!(
            (deleted(&found), found.unmatched.clone()),
            (vec!["part/gone"], vec!["*.csv".to_owned()])
        );
        assert!(deleted(&find(work, &laid, Some(&[]), &Stop::default())).is_empty());
    }

    #[test]
    fn a_work_directory_that_is_gone_removes_nothing_where_its_files_came_from() {
        let dir = tempfile::tempdir().expect("a directory");
        let laid = layout(&["a", "d/b"], &[], &[]);
        assert!(deleted(&find(&dir.path().join("gone"), &laid, None, &Stop::default())).is_empty());
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
        let found = find(&work, &Layout::default(), None, &Stop::default());
        fs::remove_file(work.join("a")).expect("it is there");
        let kept = found.store(&files).await.expect("the rest is stored");
        assert_eq!(kept.outputs.iter().map(|output| output.path.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(kept.left_out[0].starts_with("a: it cannot be read: "), "{:?}", kept.left_out);
    }

    #[tokio::test]
    async fn pipes_sockets_and_what_is_too_deep_are_named_and_wait_for_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("file://{}", dir.path().join("store").display());
        let files = Files::open(&url.parse().expect("a store"), None).await.expect("a store");
        let work = dir.path().join("work");
        let name = "n".repeat(250);
        let deep: PathBuf = std::iter::repeat_n(name.as_str(), 11).collect();
        fs::create_dir_all(work.join(&deep)).expect("a directory");
        fs::write(work.join(&deep).join("fits"), "").expect("a file");
        let inner = fs::File::open(work.join(&deep)).expect("a directory");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkdirat(&inner, &name, mode).expect("a directory");
        let inner = beneath::directory(&inner, Path::new(&name)).expect("a directory");
        rustix::fs::mkdirat(&inner, &name, mode).expect("a directory");
        rustix::fs::mknodat(rustix::fs::CWD, work.join("pipe"), FileType::Fifo, mode, 0).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(work.join("socket")).expect("a socket");
        fs::write(work.join("turned"), "x").expect("a file");
        let found = find(&work, &Layout::default(), None, &Stop::default());
        // A file that became a pipe since.
        fs::remove_file(work.join("turned")).expect("it is there");
        rustix::fs::mknodat(rustix::fs::CWD, work.join("turned"), FileType::Fifo, mode, 0).expect("a pipe");
        let kept = found.store(&files).await.expect("the rest is stored");
        assert_eq!(kept.outputs.len(), 1);
        assert_eq!(kept.left_out.len(), 4, "{:?}", kept.left_out);
        assert!(
            kept.left_out.iter().any(|sentence| sentence.contains("too deep")),
            "{:?}",
            kept.left_out
        );
    }

    #[tokio::test]
    async fn terabytes_of_holes_are_refused_at_once_and_some_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("file://{}", dir.path().join("store").display());
        let files = Files::open(&url.parse().expect("a store"), None).await.expect("a store");
        let work = dir.path().join("work");
        fs::create_dir(&work).expect("a directory");
        for (name, size) in [("some", 64 << 20), ("vast", 3 << 40)] {
            let file = fs::File::create(work.join(name)).expect("a file");
            file.set_len(size).expect("a size");
        }
        let kept = find(&work, &Layout::default(), None, &Stop::default());
        let kept = kept.store(&files).await.expect("the rest is stored");
        assert_eq!(kept.outputs[0].sha256, bus::ids::Digest::of(&vec![0; 64 << 20]));
        assert_eq!(kept.left_out.len(), 1);
        assert!(
            kept.left_out[0].starts_with("vast: it is 3072 GiB, nearly all of it holes"),
            "{:?}",
            kept.left_out
        );
    }

    #[test]
    fn what_is_mounted_in_a_work_directory_is_not_the_jobs_to_give_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let (work, data) = (dir.path().join("1/work"), dir.path().join("data"));
        fs::create_dir_all(work.join("mnt")).expect("a directory");
        fs::write(work.join("made"), "").expect("a file");
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("precious"), "data").expect("a file");
        let laid = layout(&["mnt/input", "gone"], &[], &[]);
        let Some(mounted) = beneath::Mounted::bind(&data, &work.join("mnt")) else {
            return;
        };
        let found = find(&work, &laid, None, &Stop::default());
        assert_eq!(found.candidates.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["made"]);
        assert_eq!(found.left_out.sentences, [format!("mnt: {MOUNTED}")]);
        assert_eq!(deleted(&found), ["gone"]);
        drop(mounted);
        let Some(_over) = beneath::Mounted::bind(&data, &work) else {
            return;
        };
        let found = find(&work, &laid, None, &Stop::default());
        assert!(found.candidates.is_empty() && deleted(&found).is_empty());
        assert_eq!(found.left_out.sentences, [format!(".: {MOUNTED}")]);
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
