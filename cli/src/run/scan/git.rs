//! What stands below a directory: all of it, or what git sees of it.

use std::{
    collections::{BTreeSet, HashMap},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bus::spec::RelPath;
use ignore::WalkBuilder;

use super::skipped::is_skipped;

/// Files and empty directories below a directory.
#[derive(Debug, Default)]
pub(crate) struct Below {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) empty: Vec<PathBuf>,
}

/// A walk through a directory that sees hidden files too, and follows no link. `as_git` leaves out what git ignores.
pub(crate) fn walk_of(dir: &Path, as_git: bool) -> WalkBuilder {
    let mut walk = WalkBuilder::new(dir);
    walk.standard_filters(false)
        .git_ignore(as_git)
        .git_exclude(as_git)
        .git_global(as_git)
        .parents(as_git)
        .require_git(false);
    walk
}

/// Looks through a directory, up to one file more than `most`. Links to directories are not followed. `as_git` leaves out what git
/// ignores, but not what it tracks.
pub(crate) fn below(dir: &Path, as_git: bool, most: usize) -> Below {
    let as_git = as_git && can_be_asked(dir);
    let walk = walk_of(dir, as_git)
        .filter_entry(move |entry| {
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            let is_readable = !(as_git && is_dir) || std::fs::metadata(entry.path().join(".gitignore")).map_or(true, |meta| meta.is_file());
            entry.depth() == 0 || (is_readable && !is_skipped(entry.path(), is_dir))
        })
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

/// How long git may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much it may say, in bytes.
const MOST_SAID: u64 = 64 << 20;

/// The files that git tracks below a directory, and that are there; also where it would ignore them. Nothing without git.
///
/// A repository that somebody else laid must not make git run anything: its configuration may name programs for the file system's watch
/// (`core.fsmonitor`) and for fetching what a partial clone lacks (`core.sshCommand`). So both are off, nothing is fetched, sparse
/// entries are not expanded, and git's own variables are not passed on.
pub(crate) fn tracked(dir: &Path) -> Vec<PathBuf> {
    let own = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(b"GIT_"));
    let mut command = Command::new("git");
    for name in own {
        command.env_remove(name);
    }
    let spawned = command
        .args([
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.untrackedCache=false",
            "-c",
            "protocol.allow=never",
        ])
        .args(["ls-files", "-z", "--cached", "--sparse"])
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut git) = spawned else { return Vec::new() };
    let said = git.stdout.take();
    let (send, receive) = std::sync::mpsc::channel();
    // A pipe in the place of git's index would be waited for.
    let reading = std::thread::spawn(move || {
        let mut listed = Vec::new();
        let is_read = said.is_some_and(|said| said.take(MOST_SAID).read_to_end(&mut listed).is_ok());
        let _gone = send.send(if is_read { listed } else { Vec::new() });
    });
    let listed = receive.recv_timeout(PATIENCE).unwrap_or_default();
    let _ended = git.kill().and_then(|()| git.wait());
    let _joined = reading.join();
    let names = listed.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    // An index may say anything: only what is really below the directory is meant.
    let inside = names.filter(|name| name.parse::<RelPath>().is_ok()).map(|name| dir.join(name));
    let Ok(real) = dir.canonicalize() else { return Vec::new() };
    let mut dirs: HashMap<PathBuf, bool> = HashMap::new();
    let mut is_inside = |path: &Path| {
        let parent = path.parent().unwrap_or(path);
        *dirs
            .entry(parent.to_owned())
            .or_insert_with(|| parent.canonicalize().is_ok_and(|parent| parent.starts_with(&real)))
    };
    inside.filter(|path| is_inside(path) && path.is_file()).collect()
}

/// Whether the files that say what git ignores can be read at once: a pipe or a device in their place would stop the walk.
pub(crate) fn can_be_asked(dir: &Path) -> bool {
    let says = |path: PathBuf| std::fs::metadata(&path).is_ok_and(|meta| !meta.is_file() || meta.len() > 1 << 20);
    let above = dir
        .ancestors()
        .flat_map(|dir| [dir.join(".gitignore"), dir.join(".ignore"), dir.join(".git/info/exclude")]);
    !above.into_iter().any(says)
}
