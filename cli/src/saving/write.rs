//! One output on its way to its place.

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
    At, Bringer,
    decide::{Act, Manner, There, decide},
    journal::{Deed, absolute},
    look::{Thing, link, look, look_at},
    mode::new_mode,
    parents::parent,
    replaced,
    sent::Given,
};

/// The longest name of a file, in bytes.
const NAME_MAX: usize = 255;

/// What became of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// It was here already.
    Same {
        /// What identifies it.
        content: Digest,
    },
    /// It is at its place.
    Saved {
        /// What identifies it.
        content: Digest,
    },
    /// It is at its place, and what was there is kept.
    Replaced {
        /// What identifies it.
        content: Digest,
    },
    /// It is beside what was there.
    Beside {
        /// Where.
        at: PathBuf,
    },
}

impl Done {
    /// What identifies what stands at the output's place now.
    pub(crate) const fn content(&self) -> Option<Digest> {
        match self {
            Self::Same { content } | Self::Saved { content } | Self::Replaced { content } => Some(*content),
            Self::Beside { .. } => None,
        }
    }
}

/// Where an output belongs, and how it stands there.
struct Spot {
    /// The path, with a link that is written through followed.
    target: PathBuf,
    there: There,
    /// What identifies what stands there.
    old: Option<Digest>,
}

/// Something that can be put at a path.
enum Comes<'a> {
    File(Fetched),
    Link(&'a str),
}

impl Comes<'_> {
    /// Puts it there; what was there is replaced, in one step.
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

impl Bringer<'_> {
    /// Saves a file.
    pub(crate) async fn file(&self, file: &At<ArtifactView>) -> anyhow::Result<Done> {
        let (path, content) = (file.what.path.as_str(), file.what.sha256);
        self.check_unasked(path, content)?;
        let at = self.way_to_file(path, &file.there)?;
        let spot = self.spot(&at, &file.there, content).await?;
        match decide(spot.there, self.whither.manner) {
            Act::Leave => {
                self.same_mode(&spot.target, file)?;
                return Ok(Done::Same { content });
            }
            Act::Refuse => return Err(differs(&spot.target)),
            Act::Place | Act::Keep | Act::Beside => {}
        }
        let dir = parent(&spot.target);
        let fetched = fetched(self.client, &file.what, dir, &self.bar).await?;
        // While it came, somebody may have changed what is here.
        let spot = self.spot(&at, &file.there, content).await?;
        let standing = fs::metadata(&spot.target).ok().map(|meta| meta.permissions().mode() & 0o777);
        let (standing, given) = match (standing, spot.there) {
            (None, There::Nothing) => self.modes_of_renamed(content),
            (standing, There::Sent) => (standing, self.given_mode(&file.there)),
            (standing, _) => (standing, None),
        };
        fetched.set_mode(new_mode(&file.what, standing, given))?;
        self.put(Comes::File(fetched), &spot, content)
    }

    /// Makes a link.
    pub(crate) async fn link(&self, at: &At<Link>, named: &BTreeSet<&str>) -> anyhow::Result<Done> {
        let (path, says) = (at.what.path.as_str(), at.what.target.as_str());
        check_link(&at.what, named)?;
        self.check_unasked(path, link(says))?;
        let target = self.way_to(path, &at.there)?;
        client::check_climb(&at.what, self.whither.into, &target)?;
        let content = link(says);
        let spot = self.spot_of_link(&target, &at.there, content).await?;
        match decide(spot.there, self.whither.manner) {
            Act::Leave => Ok(Done::Same { content }),
            Act::Refuse => Err(differs(&spot.target)),
            Act::Place | Act::Keep | Act::Beside => self.put(Comes::Link(says), &spot, content),
        }
    }

    /// Holds back what some program would run unasked, unless it is here already as it is or the user named it.
    fn check_unasked(&self, path: &str, content: Digest) -> anyhow::Result<()> {
        let Some(who) = self.whither.asked.held_back_for(path) else {
            return Ok(());
        };
        let is_here = ensure_inside(self.whither.into, parent(&self.place_of(path)?)).is_ok()
            && look(&self.place_of(path)?).is_ok_and(|thing| thing == Thing::Leaf(content));
        ensure!(
            is_here,
            "{who} would run it, or do as it says, unasked, so that it comes here only if --output names it"
        );
        Ok(())
    }

    /// How it stands at the place of a file.
    async fn spot(&self, at: &Path, there: &str, content: Digest) -> anyhow::Result<Spot> {
        let given = self.whither.sent.get(there);
        let is_link = at.is_symlink();
        // A link that was sent was replaced by the job; through any other one it is written, as the script itself would have done.
        let target = if is_link && !matches!(given, Some(given @ Given::Link(_)) if look(at)? == Thing::Leaf(given.identity())) {
            ensure_inside(self.whither.into, at)?;
            fs::canonicalize(at).context("a link that leads nowhere is in the way")?
        } else {
            at.to_owned()
        };
        self.standing(target, at, there, content).await
    }

    /// How it stands at the place of a link.
    async fn spot_of_link(&self, at: &Path, there: &str, content: Digest) -> anyhow::Result<Spot> {
        self.standing(at.to_owned(), at, there, content).await
    }

    async fn standing(&self, target: PathBuf, at: &Path, there: &str, content: Digest) -> anyhow::Result<Spot> {
        let mut thing = look_at(target.clone())
            .await
            .with_context(|| format!("cannot read {}", target.display()))?;
        if thing == Thing::Directory && matches!(self.whither.manner, Manner::AsRun { .. }) {
            // It was sent, perhaps, and the job made a file of it.
            self.remove_below(there);
            thing = look(&target)?;
        }
        let (there, old) = match thing {
            Thing::Nothing => (There::Nothing, None),
            Thing::Directory => bail!("a directory of that name is in the way"),
            Thing::Special => bail!("something that is neither a file nor a directory is in the way"),
            Thing::Leaf(old) if old == content => (There::Same, Some(old)),
            Thing::Leaf(old) if self.whither.sent.get(there).is_some_and(|given| given.identity() == old) => (There::Sent, Some(old)),
            Thing::Leaf(old) if self.made(at) == Some(old) => (There::Ours, Some(old)),
            Thing::Leaf(old) => (There::Foreign, Some(old)),
        };
        Ok(Spot { target, there, old })
    }

    /// What an earlier job made at this path.
    fn made(&self, at: &Path) -> Option<Digest> {
        let path = at.strip_prefix(self.whither.base).ok()?.to_str()?;
        self.record.made(path)
    }

    /// Puts an output where it belongs.
    fn put(&self, comes: Comes<'_>, spot: &Spot, content: Digest) -> anyhow::Result<Done> {
        match decide(spot.there, self.whither.manner) {
            Act::Leave => Ok(Done::Same { content }),
            Act::Refuse => Err(differs(&spot.target)),
            Act::Place => {
                comes.place(&spot.target)?;
                Ok(Done::Saved { content })
            }
            Act::Keep => match self.keep(spot, content) {
                Ok(()) => {
                    comes.place(&spot.target)?;
                    Ok(Done::Replaced { content })
                }
                // What cannot be kept is not replaced.
                Err(_) => self.put_beside(comes, &spot.target, content),
            },
            Act::Beside => self.put_beside(comes, &spot.target, content),
        }
    }

    /// Keeps what stands at a spot.
    fn keep(&self, spot: &Spot, content: Digest) -> anyhow::Result<()> {
        let base = absolute(self.whither.base);
        let name = spot.target.file_name().context("a path has a name")?;
        let real = parent(&spot.target).canonicalize()?.join(name);
        let path = real.strip_prefix(&base)?.to_str().context("a path is text")?.to_owned();
        let kept = replaced::keep(&base, self.whither.job, &path)?;
        if let Some(old) = spot.old {
            self.journal.note(&[Deed::Replaced {
                base,
                path,
                kept,
                old,
                new: content,
            }]);
        }
        Ok(())
    }

    /// Puts an output beside what stands at its place.
    fn put_beside(&self, comes: Comes<'_>, target: &Path, content: Digest) -> anyhow::Result<Done> {
        let suffix = format!(".rgrid-{}", self.whither.job);
        let at = target.with_file_name(beside_name(target.file_name().unwrap_or_default(), &suffix));
        match look(&at)? {
            Thing::Nothing => comes.place(&at)?,
            Thing::Leaf(old) if old == content => {}
            _ => bail!("{} is here already, and is something else", at.display()),
        }
        Ok(Done::Beside { at })
    }

    /// Of a file that the job renamed: the mode that it has here, and the one that it was given with, where those differ.
    fn modes_of_renamed(&self, content: Digest) -> (Option<u32>, Option<u32>) {
        let renamed = self.renamed.get_or_init(|| {
            let gone = self.deleted.iter().filter_map(|gone| match self.whither.sent.get(&gone.there)? {
                Given::File { sha256, mode, .. } => Some((*sha256, (gone.what.to_string(), *mode))),
                Given::Link(_) => None,
            });
            gone.collect()
        });
        let Some((path, mode)) = renamed.get(&content) else {
            return (None, None);
        };
        let here = fs::symlink_metadata(self.whither.into.join(path))
            .ok()
            .filter(fs::Metadata::is_file);
        match here.map(|meta| meta.permissions().mode() & 0o777) {
            Some(here) if here != *mode => (Some(here), Some(*mode)),
            _ => (None, None),
        }
    }

    fn given_mode(&self, there: &str) -> Option<u32> {
        match self.whither.sent.get(there)? {
            Given::File { mode, .. } => Some(*mode),
            Given::Link(_) => None,
        }
    }

    /// Gives a file that is here already the mode that the job left it with.
    fn same_mode(&self, target: &Path, file: &At<ArtifactView>) -> anyhow::Result<()> {
        let standing = fs::metadata(target)?.permissions().mode() & 0o777;
        match new_mode(&file.what, Some(standing), self.given_mode(&file.there)) {
            NewMode::Exactly(mode) if mode != standing => Ok(fs::set_permissions(target, fs::Permissions::from_mode(mode))?),
            _ => Ok(()),
        }
    }
}

fn differs(at: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} is here and differs; replace it with --overwrite", at.display())
}

/// A name with a suffix, cut where it would be too long.
fn beside_name(name: &std::ffi::OsStr, suffix: &str) -> OsString {
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
            beside_name("stock.db".as_ref(), suffix),
            OsString::from(format!("stock.db{suffix}"))
        );
        assert!(beside_name("ä".repeat(127).as_ref(), suffix).len() <= NAME_MAX);
    }
}
