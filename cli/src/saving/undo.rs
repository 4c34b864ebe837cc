//! Undoes and redoes what saving a job's outputs replaced and removed.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::Context as _;
use bus::ids::{Digest, JobId};
use client::{Client, NewMode, ensure_inside, fetched, target};
use model::ArtifactView;

use super::{
    journal::{Journal, JournalEntry},
    path_kind::{PathKind, link, path_kind},
    replaced,
};
use crate::output::progress;

/// What is to be done for one deed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum UndoStep {
    /// Nothing: it is so already.
    Nothing,
    /// What stands here and what is kept change places.
    Exchange,
    /// What is kept comes back to where nothing stands.
    PutBack,
    /// It is fetched from the grid.
    Restore,
    /// It is removed.
    Remove,
    /// It would harm what somebody did since.
    Refuse(&'static str),
}

/// The result.
#[derive(Debug, Default)]
pub(crate) struct Undone {
    /// Whether it was done again, rather than undone.
    pub(crate) again: bool,
    /// The paths that changed here.
    pub(crate) changed: Vec<String>,
    /// What was not done, each with the reason.
    pub(crate) refused: Vec<String>,
}

/// Undoes what a job's end did here; what is undone already is done again. Nothing at all is done where something is in the way, unless
/// with `force`: then what can be done is. Nothing where nothing is known of the job.
///
/// # Errors
/// If something cannot be read.
pub(crate) async fn undo(client: &Client, job: JobId, force: bool) -> anyhow::Result<Option<Undone>> {
    let journal = Journal::of(job);
    let (deeds, again) = journal.read();
    if deeds.is_empty() {
        return Ok(None);
    }
    let mut undone = Undone {
        again,
        ..Undone::default()
    };
    let mut steps = Vec::new();
    // The last thing first; and done again, the first.
    let mut ordered: Vec<&JournalEntry> = deeds.iter().collect();
    if !again {
        ordered.reverse();
    }
    for deed in ordered {
        let step = plan(job, deed, again, force).with_context(|| format!("cannot look at {}", shown(deed)))?;
        match step {
            UndoStep::Nothing => {}
            UndoStep::Refuse(why) => undone.refused.push(format!("{} {why}", shown(deed))),
            step => steps.push((deed, step)),
        }
    }
    if !undone.refused.is_empty() && !force {
        return Ok(Some(undone));
    }
    for (deed, step) in steps {
        match carry_out(client, job, deed, &step).await {
            Ok(()) => undone.changed.push(shown(deed)),
            Err(error) => undone.refused.push(format!("{}: {error:#}", shown(deed))),
        }
    }
    if !undone.changed.is_empty() {
        journal.note(&[if again { JournalEntry::Redone } else { JournalEntry::Undone }]);
    }
    Ok(Some(undone))
}

/// The path of what a deed was done to.
fn shown(deed: &JournalEntry) -> String {
    match deed {
        JournalEntry::Replaced { base, path, .. }
        | JournalEntry::Removed { base, path, .. }
        | JournalEntry::RemovedLink { base, path, .. }
        | JournalEntry::RemovedDirectory { base, path } => base.join(path).display().to_string(),
        JournalEntry::Undone | JournalEntry::Redone => String::new(),
    }
}

fn plan(job: JobId, deed: &JournalEntry, again: bool, force: bool) -> std::io::Result<UndoStep> {
    Ok(match deed {
        JournalEntry::Replaced {
            base,
            path,
            kept,
            old,
            new,
        } => {
            let (here, away) = (path_kind(&base.join(path))?, path_kind(&base.join(replaced::place(job, kept)))?);
            let (from, to) = if again { (*old, *new) } else { (*new, *old) };
            swap((here, away), (from, to), force)
        }
        JournalEntry::Removed { base, path, sha256, .. } => comes_and_goes(path_kind(&base.join(path))?, *sha256, again),
        JournalEntry::RemovedLink { base, path, target } => comes_and_goes(path_kind(&base.join(path))?, link(target), again),
        JournalEntry::RemovedDirectory { base, path } => match (path_kind(&base.join(path))?, again) {
            (PathKind::Nothing, false) => UndoStep::Restore,
            (PathKind::Directory, true) => UndoStep::Remove,
            (_, _) => UndoStep::Nothing,
        },
        JournalEntry::Undone | JournalEntry::Redone => UndoStep::Nothing,
    })
}

/// What is to be done with a file that stands here, and another one that is kept, so that the one of `to` comes to stand here in the place
/// of the one of `from`.
fn swap((here, away): (PathKind, PathKind), (from, to): (Digest, Digest), force: bool) -> UndoStep {
    match (here, away) {
        (PathKind::Leaf(here), _) if here == to => UndoStep::Nothing,
        (_, PathKind::Nothing | PathKind::Directory | PathKind::Special) => {
            UndoStep::Refuse("cannot be restored: its copy in .rgrid/replaced no longer exists")
        }
        // What was there when force exchanged the two last.
        (_, away) if away != PathKind::Leaf(to) && !force => {
            UndoStep::Refuse("its copy in .rgrid/replaced has changed; --force exchanges the two")
        }
        (PathKind::Leaf(here), _) if here == from || force => UndoStep::Exchange,
        (PathKind::Nothing, _) if force => UndoStep::PutBack,
        (PathKind::Leaf(_), _) => {
            UndoStep::Refuse("has changed since; --force restores the other file, and keeps this one in .rgrid/replaced")
        }
        (PathKind::Nothing, _) => UndoStep::Refuse("was removed since; --force restores its copy"),
        (PathKind::Directory | PathKind::Special, _) => UndoStep::Refuse("is no longer a file"),
    }
}

/// What is to be done with what was removed.
fn comes_and_goes(here: PathKind, content: Digest, again: bool) -> UndoStep {
    match (here, again) {
        (PathKind::Nothing, false) => UndoStep::Restore,
        (PathKind::Leaf(here), true) if here == content => UndoStep::Remove,
        (PathKind::Nothing, true) => UndoStep::Nothing,
        (PathKind::Leaf(here), false) if here == content => UndoStep::Nothing,
        (_, false) => UndoStep::Refuse("exists again with other content; move it away first"),
        (_, true) => UndoStep::Refuse("has changed since, and is kept"),
    }
}

async fn carry_out(client: &Client, job: JobId, deed: &JournalEntry, step: &UndoStep) -> anyhow::Result<()> {
    match (step, deed) {
        (UndoStep::Exchange, JournalEntry::Replaced { base, path, kept, .. }) => Ok(replaced::exchange(base, job, path, kept)?),
        (UndoStep::PutBack, JournalEntry::Replaced { base, path, kept, .. }) => Ok(replaced::put_back(base, job, path, kept)?),
        (
            UndoStep::Restore,
            JournalEntry::Removed {
                base,
                path,
                sha256,
                size,
                mode,
            },
        ) => {
            let at = way(base, path)?;
            let file = ArtifactView {
                path: path.parse()?,
                sha256: *sha256,
                size: *size,
                executable: false,
                mode: Some(*mode),
            };
            let dir = at.parent().unwrap_or(base);
            let fetched = fetched(client, &file, dir, &progress("fetching", *size)).await?;
            fetched.set_mode(NewMode::Exactly(*mode))?;
            Ok(fetched.place(&at)?)
        }
        (UndoStep::Restore, JournalEntry::RemovedLink { base, path, target }) => Ok(symlink(target, way(base, path)?)?),
        (UndoStep::Restore, JournalEntry::RemovedDirectory { base, path }) => Ok(fs::create_dir_all(way(base, path)?)?),
        (UndoStep::Remove, JournalEntry::Removed { base, path, .. } | JournalEntry::RemovedLink { base, path, .. }) => {
            let at = target(base, path)?;
            ensure_inside(base, at.parent().unwrap_or(base))?;
            Ok(fs::remove_file(at)?)
        }
        (UndoStep::Remove, JournalEntry::RemovedDirectory { base, path }) => {
            // Something came into it meanwhile: it stays.
            let _ = fs::remove_dir(target(base, path)?);
            Ok(())
        }
        (_, _) => Ok(()),
    }
}

/// The way to a path below a directory, behind no link that leads out of it.
fn way(base: &Path, path: &str) -> anyhow::Result<std::path::PathBuf> {
    let at = target(base, path)?;
    let dir = at.parent().unwrap_or(base);
    ensure_inside(base, dir)?;
    fs::create_dir_all(dir)?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_since_is_not_exchanged_unless_by_force() {
        let (old, new, other) = (Digest::of(b"old"), Digest::of(b"new"), Digest::of(b"other"));
        let leaf = PathKind::Leaf;
        let plain = |here, away| swap((here, away), (new, old), false);
        let forced = |here, away| swap((here, away), (new, old), true);
        assert_eq!(plain(leaf(new), leaf(old)), UndoStep::Exchange);
        assert_eq!(plain(leaf(old), leaf(new)), UndoStep::Nothing, "it is undone");
        assert_eq!(plain(leaf(old), PathKind::Nothing), UndoStep::Nothing, "it was never done");
        for (here, force) in [(leaf(other), UndoStep::Exchange), (PathKind::Nothing, UndoStep::PutBack)] {
            assert!(matches!(plain(here, leaf(old)), UndoStep::Refuse(_)));
            assert_eq!(forced(here, leaf(old)), force);
        }
        assert!(
            matches!(forced(leaf(new), PathKind::Nothing), UndoStep::Refuse(_)),
            "nothing is lost by force"
        );
        assert!(matches!(plain(leaf(new), leaf(other)), UndoStep::Refuse(_)));
        assert_eq!(
            forced(leaf(new), leaf(other)),
            UndoStep::Exchange,
            "what force kept comes back by force"
        );
        assert!(matches!(forced(PathKind::Directory, leaf(old)), UndoStep::Refuse(_)));
    }

    #[test]
    fn what_was_removed_comes_back_where_nothing_stands_and_goes_again_as_it_was() {
        let (content, other) = (Digest::of(b"x"), PathKind::Leaf(Digest::of(b"y")));
        assert_eq!(comes_and_goes(PathKind::Nothing, content, false), UndoStep::Restore);
        assert_eq!(comes_and_goes(PathKind::Leaf(content), content, false), UndoStep::Nothing);
        assert_eq!(comes_and_goes(PathKind::Leaf(content), content, true), UndoStep::Remove);
        assert!(matches!(comes_and_goes(other, content, false), UndoStep::Refuse(_)));
        assert!(matches!(comes_and_goes(other, content, true), UndoStep::Refuse(_)));
    }
}
