//! What a job left is brought to a directory here: every output that can be saved is, nothing that was not sent is lost, and what the job
//! removed of what it was given is removed.

mod decide;
mod journal;
mod look;
mod mode;
mod parents;
mod record;
mod remove;
mod replaced;
mod report;
mod sent;
mod state;
mod unasked;
pub(crate) mod undo;
mod write;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bus::{
    ids::{Digest, JobId},
    spec::{RelPath, tree::Link},
};
use client::Client;
use futures::{StreamExt as _, stream};
use model::ArtifactView;
use parking_lot::Mutex;

pub(crate) use self::{
    decide::Manner,
    replaced::DIR as OWN_DIR,
    report::{Report, Unsaved, names},
    sent::Sent,
    state::dir as state_dir,
    unasked::Asked,
};
use self::{
    journal::Journal,
    record::{Record, Saved},
    write::Done,
};
use crate::output::progress;

/// Files that are fetched at once.
const AT_ONCE: usize = 16;

/// Something that comes back to a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    /// It, by its path from there.
    pub(crate) what: T,
    /// Its path in the job's directory.
    pub(crate) there: String,
}

/// What comes back to one directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Back {
    /// Files that the job made or changed.
    pub(crate) files: Vec<At<ArtifactView>>,
    /// Links that it made.
    pub(crate) links: Vec<At<Link>>,
    /// What it removed of what it was given.
    pub(crate) deleted: Vec<At<RelPath>>,
}

impl Back {
    /// All of it to a directory that stands for the job's own.
    pub(crate) fn here(files: Vec<ArtifactView>, links: Vec<Link>) -> Self {
        let files = files.into_iter().map(|file| At {
            there: file.path.to_string(),
            what: file,
        });
        let links = links.into_iter().map(|link| At {
            there: link.path.to_string(),
            what: link,
        });
        Self {
            files: files.collect(),
            links: links.collect(),
            deleted: Vec::new(),
        }
    }
}

/// Where what comes back belongs, and on whose word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whither<'a> {
    /// The job.
    pub(crate) job: JobId,
    /// The directory.
    pub(crate) into: &'a Path,
    /// The directory that has the `.rgrid` of what is replaced: this one, or one above it.
    pub(crate) base: &'a Path,
    /// On whose word.
    pub(crate) manner: Manner,
    /// What the job was given.
    pub(crate) sent: &'a Sent,
    /// Whether what it removed is removed here.
    pub(crate) removes: bool,
    /// What the user asked for by name, of what others would run unasked.
    pub(crate) asked: &'a Asked,
}

/// One directory while things are brought to it.
struct Bringer<'a> {
    client: &'a Client,
    whither: Whither<'a>,
    record: Record,
    journal: Journal,
    bar: client::Progress,
    deleted: Vec<At<RelPath>>,
    /// The directories that files were found to belong in, and which are there.
    ways: Mutex<HashSet<PathBuf>>,
    /// Repositories that outputs would be saved in, and whether each was here before.
    repositories: Mutex<HashMap<PathBuf, bool>>,
    /// The files that were given and removed, by content, where that is asked for: each by its path here and the mode it was given with.
    renamed: OnceLock<HashMap<Digest, (String, u32)>>,
    /// Whether the grid was away for too long: nothing more is asked of it.
    is_away: AtomicBool,
}

/// Brings to a directory what a job left. What cannot be saved is in the report, and keeps nothing else from its place.
pub(crate) async fn bring(client: &Client, whither: Whither<'_>, back: Back) -> Report {
    let Back { files, links, deleted } = back;
    let bringer = Bringer {
        client,
        whither,
        record: Record::of(whither.base),
        journal: Journal::of(whither.job),
        bar: progress("fetching", files.iter().map(|file| file.what.size).sum()),
        deleted,
        ways: Mutex::default(),
        repositories: Mutex::default(),
        renamed: OnceLock::new(),
        is_away: AtomicBool::new(false),
    };
    let mut report = Report::default();
    let mut saved = Vec::new();
    let saving: Vec<_> = files.iter().map(|file| bringer.guarded(file)).collect();
    let mut saving = stream::iter(saving).buffer_unordered(AT_ONCE);
    while let Some((file, done)) = saving.next().await {
        report.bytes += if done.is_ok() { file.what.size } else { 0 };
        bringer.note(&mut report, &mut saved, (&file.there, file.what.path.as_str(), false), done);
    }
    bringer.bar.finish();
    let named: BTreeSet<&str> = links.iter().map(|link| link.what.path.as_str()).collect();
    for link in &links {
        let done = bringer.link(link, &named).await;
        bringer.note(&mut report, &mut saved, (&link.there, link.what.path.as_str(), true), done);
    }
    bringer.remove_all(&mut report);
    bringer.record.add(&saved);
    // Those that were fetched at once came in any order.
    report.saved.sort();
    report.replaced.sort();
    report.beside.sort();
    report.unsaved.sort_by(|one, other| one.path.cmp(&other.path));
    report
}

/// A path as the user would write it: below the current directory, from there.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

impl Bringer<'_> {
    /// Saves a file, unless the grid went away meanwhile.
    async fn guarded<'f>(&self, file: &'f At<ArtifactView>) -> (&'f At<ArtifactView>, anyhow::Result<Done>) {
        if self.is_away.load(Ordering::Relaxed) {
            return (file, Err(anyhow::anyhow!("the grid does not answer any more")));
        }
        let done = Box::pin(self.file(file)).await;
        if done.as_ref().is_err_and(client::is_away) {
            self.is_away.store(true, Ordering::Relaxed);
        }
        (file, done)
    }

    /// Notes what came of an output.
    fn note(&self, report: &mut Report, saved: &mut Vec<Saved>, (there, path, is_link): (&str, &str, bool), done: anyhow::Result<Done>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                let why = format!("{error:#}");
                return report.unsaved.push(Unsaved {
                    path: there.to_owned(),
                    why,
                    is_link,
                    job: self.whither.job,
                });
            }
        };
        let target = self.whither.into.join(path);
        if !matches!(done, Done::Beside { .. })
            && let Some(path) = target.strip_prefix(self.whither.base).ok().and_then(Path::to_str)
        {
            saved.push(match (self.whither.sent.get(there), done.content()) {
                (None, Some(content)) => Saved::made(path.to_owned(), content),
                (_, _) => Saved::updated(path.to_owned()),
            });
        }
        match done {
            Done::Same { .. } => report.same += 1,
            Done::Saved { .. } => report.saved.push(target),
            Done::Replaced { .. } => {
                report.replaced.push(shown(&target));
                report.saved.push(target);
            }
            Done::Beside { at } => {
                report.beside.push(shown(&at));
                report.saved.push(at);
            }
        }
    }
}

#[cfg(test)]
mod tests;
