//! Undoing what a job's end replaced and removed here, and doing it again.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::Context as _;
use bus::ids::{Digest, JobId};
use client::{Client, NewMode, ensure_inside, fetched, target};
use model::ArtifactView;

use super::{
    journal::{Deed, Journal},
    look::{Thing, link, look},
    replaced,
};
use crate::output::progress;

/// What is to be done for one deed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
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

/// What came of it.
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
    let mut ordered: Vec<&Deed> = deeds.iter().collect();
    if !again {
        ordered.reverse();
    }
    for deed in ordered {
        let step = plan(job, deed, again, force).with_context(|| format!("cannot look at {}", shown(deed)))?;
        match step {
            Step::Nothing => {}
            Step::Refuse(why) => undone.refused.push(format!("{} {why}", shown(deed))),
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
        journal.note(&[if again { Deed::Redone } else { Deed::Undone }]);
    }
    Ok(Some(undone))
}

/// The path of what a deed was done to.
fn shown(deed: &Deed) -> String {
    match deed {
        Deed::Replaced { base, path, .. }
        | Deed::Removed { base, path, .. }
        | Deed::RemovedLink { base, path, .. }
        | Deed::RemovedDirectory { base, path } => base.join(path).display().to_string(),
        Deed::Undone | Deed::Redone => String::new(),
    }
}

fn plan(job: JobId, deed: &Deed, again: bool, force: bool) -> std::io::Result<Step> {
    Ok(match deed {
        Deed::Replaced {
            base,
            path,
            kept,
            old,
            new,
        } => {
            let (here, away) = (look(&base.join(path))?, look(&base.join(replaced::place(job, kept)))?);
            let (from, to) = if again { (*old, *new) } else { (*new, *old) };
            swap((here, away), (from, to), force)
        }
        Deed::Removed { base, path, sha256, .. } => comes_and_goes(look(&base.join(path))?, *sha256, again),
        Deed::RemovedLink { base, path, target } => comes_and_goes(look(&base.join(path))?, link(target), again),
        Deed::RemovedDirectory { base, path } => match (look(&base.join(path))?, again) {
            (Thing::Nothing, false) => Step::Restore,
            (Thing::Directory, true) => Step::Remove,
            (_, _) => Step::Nothing,
        },
        Deed::Undone | Deed::Redone => Step::Nothing,
    })
}

/// What is to be done with a file that stands here, and another one that is kept, so that the one of `to` comes to stand here in the place
/// of the one of `from`.
fn swap((here, away): (Thing, Thing), (from, to): (Digest, Digest), force: bool) -> Step {
    match (here, away) {
        (Thing::Leaf(here), _) if here == to => Step::Nothing,
        (_, Thing::Nothing | Thing::Directory | Thing::Special) => {
            Step::Refuse("cannot be put back: what was kept of it in .rgrid/replaced is not there any more")
        }
        // What was there when force exchanged the two last.
        (_, away) if away != Thing::Leaf(to) && !force => {
            Step::Refuse("what is kept of it in .rgrid/replaced is something else by now; --force exchanges the two")
        }
        (Thing::Leaf(here), _) if here == from || force => Step::Exchange,
        (Thing::Nothing, _) if force => Step::PutBack,
        (Thing::Leaf(_), _) => Step::Refuse("was changed since; --force puts the other one there, and keeps this one in .rgrid/replaced"),
        (Thing::Nothing, _) => Step::Refuse("was removed since; --force puts the kept one there"),
        (Thing::Directory | Thing::Special, _) => Step::Refuse("is no file any more"),
    }
}

/// What is to be done with what was removed.
fn comes_and_goes(here: Thing, content: Digest, again: bool) -> Step {
    match (here, again) {
        (Thing::Nothing, false) => Step::Restore,
        (Thing::Leaf(here), true) if here == content => Step::Remove,
        (Thing::Nothing, true) => Step::Nothing,
        (Thing::Leaf(here), false) if here == content => Step::Nothing,
        (_, false) => Step::Refuse("is here again, and is something else; move it away first"),
        (_, true) => Step::Refuse("was changed since, and stays"),
    }
}

async fn carry_out(client: &Client, job: JobId, deed: &Deed, step: &Step) -> anyhow::Result<()> {
    match (step, deed) {
        (Step::Exchange, Deed::Replaced { base, path, kept, .. }) => Ok(replaced::exchange(base, job, path, kept)?),
        (Step::PutBack, Deed::Replaced { base, path, kept, .. }) => Ok(replaced::put_back(base, job, path, kept)?),
        (
            Step::Restore,
            Deed::Removed {
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
        (Step::Restore, Deed::RemovedLink { base, path, target }) => Ok(symlink(target, way(base, path)?)?),
        (Step::Restore, Deed::RemovedDirectory { base, path }) => Ok(fs::create_dir_all(way(base, path)?)?),
        (Step::Remove, Deed::Removed { base, path, .. } | Deed::RemovedLink { base, path, .. }) => {
            let at = target(base, path)?;
            ensure_inside(base, at.parent().unwrap_or(base))?;
            Ok(fs::remove_file(at)?)
        }
        (Step::Remove, Deed::RemovedDirectory { base, path }) => {
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
        let leaf = Thing::Leaf;
        let plain = |here, away| swap((here, away), (new, old), false);
        let forced = |here, away| swap((here, away), (new, old), true);
        assert_eq!(plain(leaf(new), leaf(old)), Step::Exchange);
        assert_eq!(plain(leaf(old), leaf(new)), Step::Nothing, "it is undone");
        assert_eq!(plain(leaf(old), Thing::Nothing), Step::Nothing, "it was never done");
        for (here, force) in [(leaf(other), Step::Exchange), (Thing::Nothing, Step::PutBack)] {
            assert!(matches!(plain(here, leaf(old)), Step::Refuse(_)));
            assert_eq!(forced(here, leaf(old)), force);
        }
        assert!(
            matches!(forced(leaf(new), Thing::Nothing), Step::Refuse(_)),
            "nothing is lost by force"
        );
        assert!(matches!(plain(leaf(new), leaf(other)), Step::Refuse(_)));
        assert_eq!(
            forced(leaf(new), leaf(other)),
            Step::Exchange,
            "what force kept comes back by force"
        );
        assert!(matches!(forced(Thing::Directory, leaf(old)), Step::Refuse(_)));
    }

    #[test]
    fn what_was_removed_comes_back_where_nothing_stands_and_goes_again_as_it_was() {
        let (content, other) = (Digest::of(b"x"), Thing::Leaf(Digest::of(b"y")));
        assert_eq!(comes_and_goes(Thing::Nothing, content, false), Step::Restore);
        assert_eq!(comes_and_goes(Thing::Leaf(content), content, false), Step::Nothing);
        assert_eq!(comes_and_goes(Thing::Leaf(content), content, true), Step::Remove);
        assert!(matches!(comes_and_goes(other, content, false), Step::Refuse(_)));
        assert!(matches!(comes_and_goes(other, content, true), Step::Refuse(_)));
    }
}
