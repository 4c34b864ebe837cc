//! The report on saved outputs, and its messages.

use std::{collections::BTreeMap, fmt::Display, path::PathBuf};

use bus::ids::JobId;
use serde_json::{Value, json};

use crate::output::{counted, one_line};

/// Names that are told in one line.
const NAMES: usize = 5;
/// Outputs that could not be saved and are told one by one.
const LINES: usize = 20;

/// An output that could not be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsaved {
    /// Its path, in the job's directory.
    pub(crate) path: String,
    /// Why.
    pub(crate) why: String,
    /// Whether it is a link.
    pub(crate) is_link: bool,
    /// Whose it is.
    pub(crate) job: JobId,
}

/// The result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// What was saved, and where.
    pub(crate) saved: Vec<PathBuf>,
    /// How many outputs were here already.
    pub(crate) same: usize,
    /// Bytes of both.
    pub(crate) bytes: u64,
    /// Files of here that were replaced, and are kept.
    pub(crate) replaced: Vec<String>,
    /// Outputs that were saved beside a file of here.
    pub(crate) beside: Vec<String>,
    /// Files of here that were removed, as the job did.
    pub(crate) removed: Vec<String>,
    /// Files that the job removed, and which stay here, each with the reason.
    pub(crate) stays: Vec<String>,
    /// How many files the job removed that are left here, since it was killed or something could not be saved.
    pub(crate) left: usize,
    /// What could not be saved.
    pub(crate) unsaved: Vec<Unsaved>,
    /// What the worker has to say of outputs, and of how many jobs.
    pub(crate) notes: BTreeMap<String, usize>,
}

impl Report {
    /// Whether every output is here.
    pub(crate) const fn is_whole(&self) -> bool {
        self.unsaved.is_empty()
    }

    /// All of it, in one object.
    pub(crate) fn to_json(&self) -> Value {
        let unsaved: Vec<Value> = self
            .unsaved
            .iter()
            .map(|one| json!({ "path": one.path, "reason": one.why }))
            .collect();
        json!({ "replaced": self.replaced, "beside": self.beside, "removed": self.removed, "stays": self.stays, "unsaved": unsaved })
    }

    /// What the user must know, a line each.
    pub(crate) fn lines(&self, undo: &dyn Display) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.replaced.is_empty() {
            let (files, it) = (counted(self.replaced.len(), "file"), old(self.replaced.len()));
            let were = if self.replaced.len() == 1 { "was" } else { "were" };
            lines.push(format!(
                "replaced {files} that {were} not sent ({}); `rgrid undo {undo}` restores {it}",
                names(&self.replaced)
            ));
        }
        if !self.beside.is_empty() {
            lines.push(format!(
                "local files that were not sent are kept, because the job did not succeed or they could not be backed up; the outputs are saved next to them: {}",
                names(&self.beside)
            ));
        }
        if !self.stays.is_empty() {
            lines.push(format!("kept here, although the job removed it: {}", names(&self.stays)));
        }
        let not_all = self.unsaved.iter().take(LINES).map(|one| {
            let (path, job) = (shell_words::quote(&one.path), one.job);
            format!(
                "cannot save {}: {}; `rgrid download {job} --file {path} -o DIR` saves it elsewhere",
                one_line(&one.path, 200),
                one.why
            )
        });
        lines.extend(not_all);
        if self.unsaved.len() > LINES {
            lines.push(format!(
                "and {} more could not be saved; `rgrid download JOB -o DIR` saves all of a job elsewhere",
                self.unsaved.len() - LINES
            ));
        }
        for (note, jobs) in self.notes.iter().take(LINES) {
            let note = one_line(note, 400);
            lines.push(if *jobs == 1 { note } else { format!("{note} (in {jobs} jobs)") });
        }
        if self.notes.len() > LINES {
            lines.push(format!("and {} more such messages; see `rgrid logs JOB`", self.notes.len() - LINES));
        }
        lines
    }

    /// Adds what came of another job's.
    pub(crate) fn add(&mut self, other: Self) {
        self.saved.extend(other.saved);
        self.same += other.same;
        self.bytes += other.bytes;
        self.replaced.extend(other.replaced);
        self.beside.extend(other.beside);
        self.removed.extend(other.removed);
        self.stays.extend(other.stays);
        self.left += other.left;
        self.unsaved.extend(other.unsaved);
        for (note, jobs) in other.notes {
            *self.notes.entry(note).or_default() += jobs;
        }
    }
}

const fn old(count: usize) -> &'static str {
    if count == 1 { "the old one" } else { "the old ones" }
}

/// The first names of a list, in a line.
pub(crate) fn names(all: &[String]) -> String {
    let mut shown: Vec<String> = all.iter().take(NAMES).map(|name| one_line(name, 80)).collect();
    if all.len() > NAMES {
        shown.push(format!("and {} more", all.len() - NAMES));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_the_user_must_know_is_one_line() {
        let job = JobId::new();
        assert!(Report::default().lines(&job).is_empty());
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let report = Report {
            replaced: list(&["stock.db", "run.log"]),
            beside: list(&["a.rgrid-1"]),
            stays: list(&["in/x (it has changed since it was sent)"]),
            unsaved: vec![Unsaved {
                path: "my out/a".to_owned(),
                why: "a file is in the way".to_owned(),
                is_link: false,
                job,
            }],
            notes: [("pipe: neither a file nor a directory".to_owned(), 3)].into(),
            ..Report::default()
        };
        let lines = report.lines(&job);
        assert_eq!(
            lines[0],
            format!("replaced 2 files that were not sent (stock.db, run.log); `rgrid undo {job}` restores the old ones")
        );
        assert!(lines[1].ends_with("a.rgrid-1") && lines[2].contains("in/x (it has changed"));
        assert_eq!(
            lines[3],
            format!("cannot save my out/a: a file is in the way; `rgrid download {job} --file 'my out/a' -o DIR` saves it elsewhere")
        );
        assert_eq!(lines[4], "pipe: neither a file nor a directory (in 3 jobs)");
        assert_eq!(names(&list(&["1", "2", "3", "4", "5", "6", "7"])), "1, 2, 3, 4, 5, and 2 more");
    }
}
