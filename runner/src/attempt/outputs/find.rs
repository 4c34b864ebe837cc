//! Looking through a work directory.

use std::{os::fd::OwnedFd, path::Path, sync::Arc};

use bus::{output::patterns::Patterns, spec::RelPath};
use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};

use super::{Candidate, ENTRY, FoundOutputs, MOUNTED, TOO_MANY, link::look_at_link, removed::MissingInputs, shown};
use crate::{
    beneath::{self, Seen, Stop, Walk},
    inputs::StagedInputs,
};

/// Finds the files of a work directory that match these patterns, or all files, and the inputs that were removed. A work directory that the
/// command deleted holds nothing, and neither does one with a mount on it, because mounted files do not belong to the job.
#[must_use]
pub(crate) fn find(work: &Path, staged: &StagedInputs, wanted: Option<&[String]>, stop: &Stop) -> FoundOutputs {
    let mut found = FoundOutputs::default();
    let mut patterns = wanted.map(Patterns::new);
    if patterns.as_ref().is_some_and(Patterns::is_empty) {
        return found;
    }
    let dirs = staged.all_dirs();
    let mut gone = MissingInputs::of(staged, &dirs);
    match open_work(work) {
        Ok(top) => {
            let top = Arc::new(top);
            found.top = Some(Arc::clone(&top));
            for seen in Walk::new(top, stop.clone()) {
                consider(&mut found, work, staged, (&mut gone, &mut patterns), seen);
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

/// Handles one entry of the walk.
fn consider(
    found: &mut FoundOutputs,
    work: &Path,
    staged: &StagedInputs,
    (gone, patterns): (&mut MissingInputs<'_>, &mut Option<Patterns>),
    seen: Seen,
) {
    match seen {
        Seen::Entry(relative, stat) => {
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            gone.seen(&relative, is_dir);
            let wanted_now = match patterns {
                Some(patterns) if is_dir => patterns.name(&relative),
                Some(patterns) => patterns.note(&relative),
                None => true,
            };
            if wanted_now {
                look(found, work, staged, &relative, &stat);
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

/// Notes that the files below this path cannot be read.
fn unreadable(found: &mut FoundOutputs, gone: &mut MissingInputs<'_>, path: &Path, errno: Errno) {
    gone.unknown_below(Some(path));
    let shown = if path.as_os_str().is_empty() { ".".to_owned() } else { shown(path) };
    match errno {
        Errno::NOENT => {}
        Errno::XDEV => found.left_out.push(format!("{shown}: {MOUNTED}")),
        errno => found.left_out.push(format!("cannot look for outputs in {shown}: {errno}")),
    }
}

fn look(found: &mut FoundOutputs, work: &Path, staged: &StagedInputs, relative: &Path, stat: &Stat) {
    let leave_out = |found: &mut FoundOutputs, why: &str| found.left_out.push(format!("{}: {why}", shown(relative)));
    let (source, stat) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return,
        FileType::RegularFile => (relative.to_owned(), *stat),
        FileType::Symlink => match look_at_link(found, work, staged, relative) {
            Some(target) => target,
            None => return,
        },
        _ => return leave_out(found, "neither a file nor a directory"),
    };
    let Some(path) = relative.to_str().and_then(|path| path.parse::<RelPath>().ok()) else {
        return leave_out(found, "a name that is not UTF-8, or too long, cannot be kept");
    };
    let staged = staged.files.get(relative).copied();
    if staged.is_some_and(|staged| staged.is_untouched(&stat)) {
        return;
    }
    let mode = stat.st_mode & 0o777;
    if !found.has_room(path.as_str(), ENTRY) {
        return found.left_out.push(format!("{path}: {TOO_MANY}"));
    }
    found.candidates.push(Candidate {
        path,
        source,
        mode,
        staged,
    });
}
