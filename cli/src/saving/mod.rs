//! Saves a job's outputs in a local directory. Every output that can be saved is saved, no local file that was not sent is lost, and inputs
//! that the job removed are removed.

mod automatic_use;
mod decide;
mod journal;
mod mode;
mod parents;
mod path_kind;
mod record;
mod remove;
mod replaced;
mod report;
mod sent;
mod state;
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
    automatic_use::NamedOutputs,
    decide::SaveMode,
    replaced::DIR as OWN_DIR,
    report::{Report, Unsaved, names},
    sent::SentInputs,
    state::dir as state_dir,
};
use self::{
    journal::Journal,
    record::{Record, RecordEntry},
    write::SaveOutcome,
};
use crate::output::progress;

/// Files that are fetched at once.
const AT_ONCE: usize = 16;

/// An output, with its local path and its path in the job's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputFile<T> {
    /// The output, with its path relative to the local directory.
    pub(crate) what: T,
    /// Its path in the job's directory.
    pub(crate) there: String,
}

/// The outputs that are saved in one local directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobOutputs {
    /// Files that the job created or changed.
    pub(crate) files: Vec<OutputFile<ArtifactView>>,
    /// Links that the job created.
    pub(crate) links: Vec<OutputFile<Link>>,
    /// Inputs that the job removed.
    pub(crate) deleted: Vec<OutputFile<RelPath>>,
}

impl JobOutputs {
    /// All outputs, for a local directory that corresponds to the job's directory.
    pub(crate) fn here(files: Vec<ArtifactView>, links: Vec<Link>) -> Self {
        let files = files.into_iter().map(|file| OutputFile {
            there: file.path.to_string(),
            what: file,
        });
        let links = links.into_iter().map(|link| OutputFile {
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

/// Where and how a job's outputs are saved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SaveTarget<'a> {
    /// The job.
    pub(crate) job: JobId,
    /// The directory.
    pub(crate) into: &'a Path,
    /// The directory that contains `.rgrid`, for replaced files: this directory, or one above it.
    pub(crate) base: &'a Path,
    /// The rules for existing files.
    pub(crate) mode: SaveMode,
    /// The inputs of the job.
    pub(crate) sent: &'a SentInputs,
    /// Whether files that the job removed are removed here.
    pub(crate) removes: bool,
    /// The automatically used outputs that the user allowed by name.
    pub(crate) asked: &'a NamedOutputs,
}

/// The state of saving outputs in one directory.
struct Saver<'a> {
    client: &'a Client,
    target: SaveTarget<'a>,
    record: Record,
    journal: Journal,
    bar: client::Progress,
    deleted: Vec<OutputFile<RelPath>>,
    /// Parent directories that are already checked and created.
    checked_dirs: Mutex<HashSet<PathBuf>>,
    /// Git repositories that outputs would be saved in, and whether each existed before.
    repositories: Mutex<HashMap<PathBuf, bool>>,
    /// Inputs that the job removed, by content, to recognise renamed files: the local path, and the mode that the file was sent with.
    renamed: OnceLock<HashMap<Digest, (String, u32)>>,
    /// Whether the grid stopped answering: no more requests are sent then.
    is_away: AtomicBool,
}

/// Saves a job's outputs in a directory. Outputs that cannot be saved are listed in the report; the others are saved nevertheless.
pub(crate) async fn save_all(client: &Client, target: SaveTarget<'_>, back: JobOutputs) -> Report {
    let JobOutputs { files, links, deleted } = back;
    let saver = Saver {
        client,
        target,
        record: Record::of(target.base),
        journal: Journal::of(target.job),
        bar: progress("fetching", files.iter().map(|file| file.what.size).sum()),
        deleted,
        checked_dirs: Mutex::default(),
        repositories: Mutex::default(),
        renamed: OnceLock::new(),
        is_away: AtomicBool::new(false),
    };
    let mut report = Report::default();
    let mut saved = Vec::new();
    let saving: Vec<_> = files.iter().map(|file| saver.save_file(file)).collect();
    let mut saving = stream::iter(saving).buffer_unordered(AT_ONCE);
    while let Some((file, done)) = saving.next().await {
        report.bytes += if done.is_ok() { file.what.size } else { 0 };
        saver.note(&mut report, &mut saved, (&file.there, file.what.path.as_str(), false), done);
    }
    saver.bar.finish();
    let named: BTreeSet<&str> = links.iter().map(|link| link.what.path.as_str()).collect();
    for link in &links {
        let done = saver.link(link, &named).await;
        saver.note(&mut report, &mut saved, (&link.there, link.what.path.as_str(), true), done);
    }
    saver.remove_all(&mut report);
    saver.record.add(&saved);
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

impl Saver<'_> {
    /// Saves a file, unless the grid has stopped answering.
    async fn save_file<'f>(&self, file: &'f OutputFile<ArtifactView>) -> (&'f OutputFile<ArtifactView>, anyhow::Result<SaveOutcome>) {
        if self.is_away.load(Ordering::Relaxed) {
            return (file, Err(anyhow::anyhow!("the grid no longer answers")));
        }
        let done = Box::pin(self.file(file)).await;
        if done.as_ref().is_err_and(client::is_away) {
            self.is_away.store(true, Ordering::Relaxed);
        }
        (file, done)
    }

    /// Adds the result of one output to the report.
    fn note(
        &self,
        report: &mut Report,
        saved: &mut Vec<RecordEntry>,
        (there, path, is_link): (&str, &str, bool),
        done: anyhow::Result<SaveOutcome>,
    ) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                let why = format!("{error:#}");
                return report.unsaved.push(Unsaved {
                    path: there.to_owned(),
                    why,
                    is_link,
                    job: self.target.job,
                });
            }
        };
        let target = self.target.into.join(path);
        if !matches!(done, SaveOutcome::Beside { .. })
            && let Some(path) = target.strip_prefix(self.target.base).ok().and_then(Path::to_str)
        {
            saved.push(match (self.target.sent.get(there), done.content()) {
                (None, Some(content)) => RecordEntry::made(path.to_owned(), content),
                (_, _) => RecordEntry::updated(path.to_owned()),
            });
        }
        match done {
            SaveOutcome::Same { .. } => report.same += 1,
            SaveOutcome::Saved { .. } => report.saved.push(target),
            SaveOutcome::Replaced { .. } => {
                report.replaced.push(shown(&target));
                report.saved.push(target);
            }
            SaveOutcome::Beside { at } => {
                report.beside.push(shown(&at));
                report.saved.push(at);
            }
        }
    }
}

#[cfg(test)]
mod tests;
