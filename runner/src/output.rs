//! Collecting what an attempt made: every file in the work directory that was not laid there, or was changed.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use bus::{
    files::{self, Files},
    manifest::OutputFile,
    spec::RelPath,
    submission::output_glob,
    tree::Link,
};
use futures::{StreamExt as _, TryStreamExt as _};
use globset::{GlobSet, GlobSetBuilder};
use walkdir::WalkDir;

use crate::{
    executor::docker::WORK,
    patience::patiently,
    stage::{Laid, Layout, chain},
};

/// Files that are stored at once.
const AT_ONCE: usize = 16;

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
}

/// What stands in a work directory after the command's end.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files that are new, or may have been changed.
    candidates: Vec<Candidate>,
    /// Links that are new, and stay inside.
    links: Vec<Link>,
    /// What is there and cannot be kept, each with a sentence why.
    pub(crate) left_out: Vec<String>,
}

#[derive(Debug)]
struct Candidate {
    path: RelPath,
    source: PathBuf,
    mode: u32,
    laid: Option<Laid>,
}

/// Looks through a work directory for what these globs name, or for everything. A directory that the command deleted holds nothing.
#[must_use]
pub(crate) fn find(work: &Path, laid: &Layout, wanted: Option<&[String]>) -> Found {
    let mut found = Found::default();
    let wanted = wanted.map(globs);
    if wanted.as_ref().is_some_and(GlobSet::is_empty) {
        return found;
    }
    for entry in WalkDir::new(work).min_depth(1).sort_by_file_name() {
        match entry {
            Ok(entry) if wanted.as_ref().is_none_or(|wanted| is_wanted(wanted, work, &entry)) => look(&mut found, work, laid, &entry),
            Ok(_) => {}
            Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => {}
            Err(error) => found.left_out.push(format!("cannot look for outputs: {error}")),
        }
    }
    found
}

/// Globs that the submission was checked for.
fn globs(wanted: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in wanted.iter().filter_map(|glob| output_glob(glob).ok()) {
        set.add(glob);
    }
    set.build().unwrap_or_default()
}

fn is_wanted(wanted: &GlobSet, work: &Path, entry: &walkdir::DirEntry) -> bool {
    entry.path().strip_prefix(work).is_ok_and(|path| wanted.is_match(path))
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

fn look(found: &mut Found, work: &Path, laid: &Layout, entry: &walkdir::DirEntry) {
    let Ok(relative) = entry.path().strip_prefix(work) else { return };
    let mut leave_out = |why: &str| found.left_out.push(format!("{}: {why}", relative.display()));
    let source = if entry.file_type().is_symlink() {
        // A link to the job's packages, which no command made.
        if laid.links.get(relative).is_some_and(String::is_empty) {
            return;
        }
        if let Some(link) = as_link(relative, entry, work) {
            if laid.links.get(relative) != Some(&link.target) {
                found.links.push(link);
            }
            return;
        }
        // A link is followed while it stays inside; one that leads out would carry the worker's own files away.
        match std::fs::canonicalize(entry.path()).and_then(|target| Ok((target, std::fs::canonicalize(work)?))) {
            Ok((target, work)) if target.starts_with(&work) && target.is_file() => target,
            Ok((target, work)) if target.starts_with(&work) => return,
            Ok(_) => return leave_out("a link that leads out of the work directory is not kept"),
            Err(_) => return leave_out("a link that leads nowhere is not kept"),
        }
    } else if entry.file_type().is_file() {
        entry.path().to_owned()
    } else {
        if !entry.file_type().is_dir() {
            leave_out("neither a file nor a directory");
        }
        return;
    };
    let Some(path) = relative.to_str().and_then(|path| path.parse::<RelPath>().ok()) else {
        return leave_out("a name that is not UTF-8 cannot be kept");
    };
    let Ok(metadata) = std::fs::metadata(&source) else { return };
    let laid = laid.files.get(relative).copied();
    let mode = metadata.permissions().mode() & 0o777;
    let untouched = |laid: Laid| {
        let as_written = laid.size == metadata.len() && laid.modified.is_some() && laid.modified == metadata.modified().ok();
        as_written && laid.has_mode(mode)
    };
    if laid.is_some_and(untouched) {
        return;
    }
    found.candidates.push(Candidate { path, source, mode, laid });
}

impl Found {
    /// Stores every output, and lists them by path. A file that was only touched is not an output.
    ///
    /// # Errors
    /// If one cannot be stored.
    pub(crate) async fn store(self, files: &Files) -> Result<(Vec<OutputFile>, Vec<Link>), Error> {
        let stored = futures::stream::iter(self.candidates.into_iter().map(|candidate| async move {
            let Candidate { path, source, mode, laid } = candidate;
            match patiently("store an output", || files.put_file(&source)).await {
                Ok((sha256, _)) if laid.is_some_and(|laid| laid.sha256 == sha256 && laid.has_mode(mode)) => Ok(None),
                Ok((sha256, size)) => Ok(Some(OutputFile {
                    path,
                    sha256,
                    size,
                    executable: mode & 0o111 != 0,
                    mode: (!matches!(mode, 0o644 | 0o755)).then_some(mode),
                })),
                Err(source) => Err(Error::Store { path, source }),
            }
        }))
        .buffered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
        Ok((stored.into_iter().flatten().collect(), self.links))
    }
}
