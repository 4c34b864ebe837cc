//! What stands below a directory: all of it, or what git sees of it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ignore::WalkBuilder;

use super::finder::is_passed_over;

/// Files and empty directories below a directory.
#[derive(Debug, Default)]
pub(super) struct Below {
    pub(super) files: Vec<PathBuf>,
    pub(super) empty: Vec<PathBuf>,
}

/// Looks through a directory, up to one file more than `most`. Links to directories are not followed. `as_git` leaves out what git
/// ignores, but not what it tracks.
pub(super) fn below(dir: &Path, as_git: bool, most: usize) -> Below {
    let walk = WalkBuilder::new(dir)
        .standard_filters(false)
        .git_ignore(as_git)
        .git_exclude(as_git)
        .git_global(as_git)
        .parents(as_git)
        .require_git(false)
        .filter_entry(|entry| entry.depth() == 0 || !is_passed_over(entry.path()))
        .build();
    let mut files = BTreeSet::new();
    let (mut dirs, mut filled) = (BTreeSet::new(), BTreeSet::new());
    for entry in walk.flatten().filter(|entry| entry.depth() > 0) {
        if let Some(parent) = entry.path().parent() {
            filled.insert(parent.to_owned());
        }
        let kind = entry.file_type();
        if kind.is_some_and(|kind| kind.is_dir()) {
            dirs.insert(entry.into_path());
        } else if kind.is_some_and(|kind| kind.is_file()) || entry.path().is_file() {
            files.insert(entry.into_path());
        }
        if files.len() > most {
            break;
        }
    }
    if as_git {
        files.extend(tracked(dir).into_iter().take(most.saturating_add(1)));
    }
    let empty = dirs.difference(&filled).cloned().collect();
    Below {
        files: files.into_iter().collect(),
        empty,
    }
}

/// The files that git tracks below a directory, and that are there; also where it would ignore them. Nothing without git.
pub(crate) fn tracked(dir: &Path) -> Vec<PathBuf> {
    // A repository's own configuration may name a program (core.fsmonitor) that git would run.
    let listed = Command::new("git")
        .args([
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.untrackedCache=false",
            "ls-files",
            "-z",
            "--cached",
        ])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(listed) = listed.map(|output| output.stdout) else {
        return Vec::new();
    };
    let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let paths = names.filter_map(|name| Some(dir.join(std::str::from_utf8(name).ok()?)));
    paths.filter(|path| path.is_file()).collect()
}
