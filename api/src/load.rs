//! A job with what correlates its events, also where some of them cannot be read: those are set aside, and the rest counts.

use async_nats::jetstream::Context;
use bus::{ids::{EventId, JobId}, job::Job, log::read};

/// A job as its events tell it now.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) job: Job,
    /// The event of its submission, which correlates all others.
    pub(crate) first: EventId,
}

/// Reads a job; nothing where there is none. What cannot be read of it is set aside (see [`read::history`]).
///
/// # Errors
/// If the log cannot be read, or the submission itself cannot.
pub(crate) async fn job(js: &Context, id: JobId) -> Result<Option<Loaded>, read::Error> {
    let history = read::history(js, id).await?;
    let Some(first) = history.first().map(|first| first.envelope.id) else {
        return Ok(None);
    };
    Ok(Job::replay(&history).map(|job| Loaded { job, first }))
}
