//! The links that a command made.

use std::path::{Component, Path, PathBuf};

use bus::spec::tree::Link;
use rustix::fs::{FileType, Stat};

use super::{ENTRY, FoundOutputs, TOO_MANY, in_json, shown};
use crate::{executor::docker::WORK, inputs::StagedInputs};

/// A link as it may be stored: with a relative target inside the work directory.
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

/// Keeps a link as such where it may be one. Otherwise it is followed while it stays inside: one that leads out would carry the worker's
/// own files away. Returns the file that it leads to, by its path in the work directory.
pub(super) fn look_at_link(found: &mut FoundOutputs, work: &Path, staged: &StagedInputs, relative: &Path) -> Option<(PathBuf, Stat)> {
    // A link to the job's packages, which no command made.
    if staged.links.get(relative).is_some_and(String::is_empty) {
        return None;
    }
    if let Some(link) = as_link(relative, work) {
        if staged.links.get(relative) != Some(&link.target) {
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
