//! The messages of `rgrid run` on standard error, one line each.

use std::collections::BTreeSet;

use bus::ids::JobId;
use chrono::Utc;
use client::Error;
use model::{AttemptOutcome, AttemptView, INTERRUPTED, JobView, LostAttempt, RETURNED, describe_loss};
use parking_lot::Mutex;

use super::missing_files::MissingFile;
use crate::output::{describe_wait, harmless};

/// The connection is lost, and will be tried again.
pub(crate) fn connection_lost(error: &Error) {
    crate::output::say!("{error} Retrying; the job continues.");
}

/// A part of the log is not there any more.
pub(crate) fn gap(job: JobId, bytes: u64) {
    crate::output::say!("{bytes} bytes of the live log were lost; after the job's end, `rgrid logs {job}` prints the complete log");
}

/// What the user should know of a job that waits.
pub(crate) fn warning(warning: &str) {
    crate::output::say!("{warning}");
}

/// What the user should know of what stands here: said once, however many jobs it holds for.
pub(crate) fn once(sentence: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().insert(sentence.to_owned()) {
        crate::output::say!("{sentence}");
    }
}

/// What a job waits for that is not ready.
pub(crate) fn waiting(job: &JobView) {
    if let Some(words) = describe_wait(job, Utc::now()) {
        crate::output::say!("{words}");
    }
}

/// An attempt begins; where others were made before it, what came of the last one.
pub(crate) fn attempt(job: JobId, attempts: &[AttemptView], number: u32) {
    let numbered = |wanted: u32| attempts.iter().find(|attempt| attempt.number.0 == wanted);
    let on = numbered(number)
        .map(|attempt| format!(" on {}", attempt.worker))
        .unwrap_or_default();
    let before = numbered(number.saturating_sub(1)).and_then(|attempt| attempt.outcome.as_ref());
    match before {
        _ if number == 1 => crate::output::say!("job {job} runs{on}"),
        Some(AttemptOutcome::Lost(LostAttempt::Lost { cause })) => {
            crate::output::say!(
                "attempt {} was lost: {}; attempt {number} starts{on}",
                number - 1,
                describe_loss(cause)
            );
        }
        Some(AttemptOutcome::Lost(LostAttempt::Returned)) => {
            crate::output::say!("attempt {} was {RETURNED}; attempt {number} starts{on}", number - 1);
        }
        Some(AttemptOutcome::Lost(LostAttempt::Interrupted)) => {
            crate::output::say!("attempt {} was {INTERRUPTED}; attempt {number} starts{on}", number - 1);
        }
        Some(AttemptOutcome::Lost(LostAttempt::Expired { .. }) | AttemptOutcome::Finished(_)) | None => {
            crate::output::say!("attempt {number} starts{on}");
        }
    }
}

/// The job goes on without us.
pub(crate) fn detached(job: JobId) {
    crate::output::say!("job {job} continues; follow it with `rgrid logs -f {job}`, cancel it with `rgrid cancel {job}`");
}

/// A cancellation could not be asked for.
pub(crate) fn not_cancelled(what: &str, id: &str, error: &Error) {
    crate::output::say!(
        "{what} could not be cancelled, and continues: {error} Cancel it with `rgrid cancel {id}` when the grid answers again"
    );
}

/// The user did not wait for a job's outputs.
pub(crate) fn unsaved(job: JobId) {
    crate::output::say!("interrupted while saving outputs: the saved files are complete; fetch the rest with `rgrid download {job}`");
}

/// A file of here that the job did not find.
pub(crate) fn missing(missing: &MissingFile) {
    match missing {
        MissingFile::Here(name) => {
            let (quoted, name) = (harmless(&shell_words::quote(name)), harmless(name));
            crate::output::say!("{name} is here, but was not sent with the job; send it with --include {quoted}");
        }
        MissingFile::Absolute(name) => crate::output::say!(
            "{} is here, but a job sees only files in its own directory: pass it to the script as an argument, or use a relative path",
            harmless(name)
        ),
    }
}
