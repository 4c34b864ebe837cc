//! Writes one output to its path.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use bus::{ids::Digest, spec::tree::Link};
use client::{Fetched, NewMode, check_link, ensure_inside, fetched};
use model::ArtifactView;

use super::{
    OutputFile, Saver,
    decide::{Existing, SaveAction, SaveMode, decide},
    journal::{JournalEntry, absolute},
    mode::new_mode,
    parents::parent,
    path_kind::{PathKind, link, path_kind, path_kind_of},
    replaced,
    sent::SentInput,
};

/// The longest name of a file, in bytes.
const NAME_MAX: usize = 255;

/// How an output was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SaveOutcome {
    /// It was already here with the same content.
    Same {
        /// The digest of its content.
        content: Digest,
    },
    /// It is at its path; no other file was there.
    Saved {
        /// The digest of its content.
        content: Digest,
    },
    /// It is at its path; the file that was there is kept in `.rgrid/replaced`.
    Replaced {
        /// The digest of its content.
        content: Digest,
    },
    /// It is saved next to the existing file, under another name.
    Beside {
        /// Where.
        at: PathBuf,
    },
}

impl SaveOutcome {
    /// The digest of the file at the output's path now.
    pub(crate) const fn content(&self) -> Option<Digest> {
        match self {
            Self::Same { content } | Self::Saved { content } | Self::Replaced { content } => Some(*content),
            Self::Beside { .. } => None,
        }
    }
}

/// The path of an output, and what exists there.
struct Destination {
    /// The path, after following a link that is written through.
    target: PathBuf,
    there: Existing,
    /// The digest of the existing file.
    old: Option<Digest>,
}

/// The new content of a path.
enum NewContent<'a> {
    File(Fetched),
    Link(&'a str),
}

impl NewContent<'_> {
    /// Writes it to the path, atomically replacing what exists there.
    fn place(self, target: &Path) -> io::Result<()> {
        match self {
            Self::File(fetched) => fetched.place(target),
            Self::Link(says) => {
                let mut name = OsString::from(".rgrid-");
                name.push(&Digest::of(target.as_os_str().as_encoded_bytes()).to_string()[..32]);
                name.push(".link");
                let beside = target.with_file_name(name);
                match fs::remove_file(&beside) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                std::os::unix::fs::symlink(says, &beside)?;
                fs::rename(&beside, target).inspect_err(|_| drop(fs::remove_file(&beside)))
            }
        }
    }
}

impl Saver<'_> {
    /// Saves a file.
    pub(crate) async fn file(&self, file: &OutputFile<ArtifactView>) -> anyhow::Result<SaveOutcome> {
        let (path, content) = (file.what.path.as_str(), file.what.sha256);
        self.check_automatic_use(path, content)?;
        let at = self.create_parents_once(path, &file.there)?;
        let destination = self.destination(&at, &file.there, content).await?;
        match decide(destination.there, self.target.mode) {
            SaveAction::Leave => {
                self.same_mode(&destination.target, file)?;
                return Ok(SaveOutcome::Same { content });
            }
            SaveAction::Refuse => return Err(differs(&destination.target)),
            SaveAction::Place | SaveAction::Keep | SaveAction::Beside => {}
        }
        let dir = parent(&destination.target);
        let fetched = fetched(self.client, &file.what, dir, &self.bar).await?;
        // While it came, somebody may have changed what is here.
        let destination = self.destination(&at, &file.there, content).await?;
        let existing_at = fs::metadata(&destination.target).ok().map(|meta| meta.permissions().mode() & 0o777);
        let (existing_at, given) = match (existing_at, destination.there) {
            (None, Existing::Nothing) => self.modes_of_renamed(content),
            (existing_at, Existing::SentInputs) => (existing_at, self.given_mode(&file.there)),
            (existing_at, _) => (existing_at, None),
        };
        fetched.set_mode(new_mode(&file.what, existing_at, given))?;
        self.put(NewContent::File(fetched), &destination, content)
    }

    /// Makes a link.
    pub(crate) async fn link(&self, at: &OutputFile<Link>, named: &BTreeSet<&str>) -> anyhow::Result<SaveOutcome> {
        let (path, says) = (at.what.path.as_str(), at.what.target.as_str());
        check_link(&at.what, named)?;
        self.check_automatic_use(path, link(says))?;
        let target = self.create_parents(path, &at.there)?;
        client::check_climb(&at.what, self.target.into, &target)?;
        let content = link(says);
        let destination = self.spot_of_link(&target, &at.there, content).await?;
        match decide(destination.there, self.target.mode) {
            SaveAction::Leave => Ok(SaveOutcome::Same { content }),
            SaveAction::Refuse => Err(differs(&destination.target)),
            SaveAction::Place | SaveAction::Keep | SaveAction::Beside => self.put(NewContent::Link(says), &destination, content),
        }
    }

    /// Refuses an output that some program would run automatically, unless the same file is already here or the user named it.
    fn check_automatic_use(&self, path: &str, content: Digest) -> anyhow::Result<()> {
        let Some(who) = self.target.asked.held_back_for(path) else {
            return Ok(());
        };
        let is_here = ensure_inside(self.target.into, parent(&self.place_of(path)?)).is_ok()
            && path_kind(&self.place_of(path)?).is_ok_and(|thing| thing == PathKind::Leaf(content));
        ensure!(
            is_here,
            "{who} would run it or use it automatically, so that it is saved only if --output names it"
        );
        Ok(())
    }

    /// What exists at the path of a file.
    async fn destination(&self, at: &Path, there: &str, content: Digest) -> anyhow::Result<Destination> {
        let given = self.target.sent.get(there);
        let is_link = at.is_symlink();
        // A link that was sent was replaced by the job; through any other one it is written, as the script itself would have done.
        let target = if is_link && !matches!(given, Some(given @ SentInput::Link(_)) if path_kind(at)? == PathKind::Leaf(given.identity()))
        {
            ensure_inside(self.target.into, at)?;
            fs::canonicalize(at).context("a dangling link exists at its path")?
        } else {
            at.to_owned()
        };
        self.existing_at(target, at, there, content).await
    }

    /// What exists at the path of a link.
    async fn spot_of_link(&self, at: &Path, there: &str, content: Digest) -> anyhow::Result<Destination> {
        self.existing_at(at.to_owned(), at, there, content).await
    }

    async fn existing_at(&self, target: PathBuf, at: &Path, there: &str, content: Digest) -> anyhow::Result<Destination> {
        let mut thing = path_kind_of(target.clone())
            .await
            .with_context(|| format!("cannot read {}", target.display()))?;
        if thing == PathKind::Directory && matches!(self.target.mode, SaveMode::AsRun { .. }) {
            // It was sent, perhaps, and the job made a file of it.
            self.remove_below(there);
            thing = path_kind(&target)?;
        }
        let (there, old) = match thing {
            PathKind::Nothing => (Existing::Nothing, None),
            PathKind::Directory => bail!("a directory of that name exists"),
            PathKind::Special => bail!("something that is neither a file nor a directory exists at its path"),
            PathKind::Leaf(old) if old == content => (Existing::Same, Some(old)),
            PathKind::Leaf(old) if self.target.sent.get(there).is_some_and(|given| given.identity() == old) => {
                (Existing::SentInputs, Some(old))
            }
            PathKind::Leaf(old) if self.made(at) == Some(old) => (Existing::Ours, Some(old)),
            PathKind::Leaf(old) => (Existing::Foreign, Some(old)),
        };
        Ok(Destination { target, there, old })
    }

    /// The digest of the output that an earlier job created at this path.
    fn made(&self, at: &Path) -> Option<Digest> {
        let path = at.strip_prefix(self.target.base).ok()?.to_str()?;
        self.record.made(path)
    }

    /// Writes an output as decided.
    fn put(&self, comes: NewContent<'_>, destination: &Destination, content: Digest) -> anyhow::Result<SaveOutcome> {
        match decide(destination.there, self.target.mode) {
            SaveAction::Leave => Ok(SaveOutcome::Same { content }),
            SaveAction::Refuse => Err(differs(&destination.target)),
            SaveAction::Place => {
                comes.place(&destination.target)?;
                Ok(SaveOutcome::Saved { content })
            }
            SaveAction::Keep => match self.keep(destination, content) {
                Ok(()) => {
                    comes.place(&destination.target)?;
                    Ok(SaveOutcome::Replaced { content })
                }
                // What cannot be kept is not replaced.
                Err(_) => self.write_beside(comes, &destination.target, content),
            },
            SaveAction::Beside => self.write_beside(comes, &destination.target, content),
        }
    }

    /// Backs up the existing file of a destination.
    fn keep(&self, destination: &Destination, content: Digest) -> anyhow::Result<()> {
        let base = absolute(self.target.base);
        let name = destination.target.file_name().context("a path has a name")?;
        let real = parent(&destination.target).canonicalize()?.join(name);
        let path = real.strip_prefix(&base)?.to_str().context("a path is text")?.to_owned();
        let kept = replaced::keep(&base, self.target.job, &path)?;
        if let Some(old) = destination.old {
            self.journal.note(&[JournalEntry::Replaced {
                base,
                path,
                kept,
                old,
                new: content,
            }]);
        }
        Ok(())
    }

    /// Writes an output next to the existing file.
    fn write_beside(&self, comes: NewContent<'_>, target: &Path, content: Digest) -> anyhow::Result<SaveOutcome> {
        let suffix = format!(".rgrid-{}", self.target.job);
        let at = target.with_file_name(name_with_suffix(target.file_name().unwrap_or_default(), &suffix));
        match path_kind(&at)? {
            PathKind::Nothing => comes.place(&at)?,
            PathKind::Leaf(old) if old == content => {}
            _ => bail!("{} already exists, and differs", at.display()),
        }
        Ok(SaveOutcome::Beside { at })
    }

    /// For a file that the job renamed: its mode here, and the mode that it was sent with, if they differ.
    fn modes_of_renamed(&self, content: Digest) -> (Option<u32>, Option<u32>) {
        let renamed = self.renamed.get_or_init(|| {
            let gone = self.deleted.iter().filter_map(|gone| match self.target.sent.get(&gone.there)? {
                SentInput::File { sha256, mode, .. } => Some((*sha256, (gone.what.to_string(), *mode))),
                SentInput::Link(_) => None,
            });
            gone.collect()
        });
        let Some((path, mode)) = renamed.get(&content) else {
            return (None, None);
        };
        let here = fs::symlink_metadata(self.target.into.join(path)).ok().filter(fs::Metadata::is_file);
        match here.map(|meta| meta.permissions().mode() & 0o777) {
            Some(here) if here != *mode => (Some(here), Some(*mode)),
            _ => (None, None),
        }
    }

    fn given_mode(&self, there: &str) -> Option<u32> {
        match self.target.sent.get(there)? {
            SentInput::File { mode, .. } => Some(*mode),
            SentInput::Link(_) => None,
        }
    }

    /// Sets the mode of a file that already has the output's content.
    fn same_mode(&self, target: &Path, file: &OutputFile<ArtifactView>) -> anyhow::Result<()> {
        let existing_at = fs::metadata(target)?.permissions().mode() & 0o777;
        match new_mode(&file.what, Some(existing_at), self.given_mode(&file.there)) {
            NewMode::Exactly(mode) if mode != existing_at => Ok(fs::set_permissions(target, fs::Permissions::from_mode(mode))?),
            _ => Ok(()),
        }
    }
}

fn differs(at: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} already exists and differs; replace it with --overwrite", at.display())
}

/// A name with a suffix, shortened if it would be too long.
fn name_with_suffix(name: &std::ffi::OsStr, suffix: &str) -> OsString {
    let text = name.to_string_lossy();
    let mut end = text.len().min(NAME_MAX - suffix.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beside_another_is_never_too_long() {
        let suffix = ".rgrid-0190f3c2-4a5b-7c00-8000-000000000001";
        assert_eq!(
            name_with_suffix("stock.db".as_ref(), suffix),
            OsString::from(format!("stock.db{suffix}"))
        );
        assert!(name_with_suffix("ä".repeat(127).as_ref(), suffix).len() <= NAME_MAX);
    }
}
