//! Reads a job from the log, and follows its changes.

use std::time::Duration;

use async_nats::jetstream::{self, stream::LastRawMessageErrorKind};
use bus::{
    ids::JobId,
    job::Job,
    log::{
        EVENTS,
        read::{self, Fact},
    },
    subjects,
};
use tracing::debug;

use crate::{
    app::App,
    error::ApiError,
    events::waiters::{Waiter, WakeUp},
};

/// The pause before a read that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How many times, and with what pause, a replica of the log is asked for a job that its leader has.
const REPLICA_READS: (u32, Duration) = (40, Duration::from_millis(50));

/// Reads a job from the log; `None` where it does not exist.
pub(crate) async fn read_job(app: &App, id: JobId) -> Result<Option<Job>, read::Error> {
    for _ in 0..REPLICA_READS.0 {
        let job = read::job(&app.bus.js, id).await?;
        // The replica that answers may lag behind the leader.
        if job.is_some() || app.replicas < 2 || !leader_has(&app.bus.js, id).await {
            return Ok(job);
        }
        tokio::time::sleep(REPLICA_READS.1).await;
    }
    Ok(None)
}

async fn leader_has(js: &jetstream::Context, id: JobId) -> bool {
    let Ok(stream) = js.get_stream_no_info(EVENTS).await else {
        return false;
    };
    match stream.get_last_raw_message_by_subject(&subjects::job_filter_anywhere(id)).await {
        Ok(_) => true,
        Err(error) => {
            if error.kind() != LastRawMessageErrorKind::NoMessageFound {
                debug!("the leader of the log does not answer about {id}: {error}");
            }
            false
        }
    }
}

/// A job that is kept up to date.
#[derive(Debug)]
pub(crate) struct Watch {
    waiter: Waiter,
    job: Job,
    /// Whether the job must be read again. A field, so that `changed` may be dropped half-way without losing a change.
    stale: bool,
}

impl Watch {
    /// Begins to watch a job.
    pub(crate) async fn open(app: &App, id: JobId) -> Result<Self, ApiError> {
        let waiter = app.waiters.register(id);
        let job = read_job(app, id).await?.ok_or_else(|| unknown(id))?;
        Ok(Self { waiter, job, stale: false })
    }

    /// The job as last read.
    pub(crate) const fn job(&self) -> &Job {
        &self.job
    }

    /// Waits until the job changes, through every outage. May be dropped half-way without losing a change.
    ///
    /// # Errors
    /// If an event of the job cannot be decoded.
    pub(crate) async fn changed(&mut self, app: &App) -> Result<(), ApiError> {
        loop {
            if self.stale {
                match read_job(app, self.job.id).await {
                    Ok(Some(job)) => {
                        self.stale = false;
                        if job.sequence > self.job.sequence {
                            self.job = job;
                            return Ok(());
                        }
                    }
                    Ok(None) => self.stale = false,
                    Err(error @ read::Error::Decode { .. }) => return Err(error.into()),
                    Err(error) => {
                        debug!("cannot read job {} again: {error}", self.job.id);
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                }
            }
            // `Waiters::looked` checks for all waiters that no event was missed.
            match self.waiter.next().await {
                WakeUp::Fact(fact) if fact.sequence <= self.job.sequence => {}
                WakeUp::Fact(fact) => {
                    if self.apply(&fact) {
                        return Ok(());
                    }
                    self.stale = true;
                }
                WakeUp::Reset => self.stale = true,
            }
        }
    }

    /// Applies a fact, if it is the job's next event.
    fn apply(&mut self, fact: &crate::events::waiters::Fact) -> bool {
        if fact.previous != self.job.sequence {
            return false;
        }
        let Ok(Some(Fact::Job(recorded))) = read::decode(&fact.subject, fact.sequence, &fact.payload) else {
            return false;
        };
        if let Some(next) = Job::evolve(Some(self.job.clone()), &recorded) {
            self.job = next;
        }
        true
    }
}

/// The problem of a job that does not exist.
pub(crate) fn unknown(id: JobId) -> ApiError {
    ApiError::not_found(format!(
        "job {id} does not exist; `rgrid list` shows the jobs, and `rgrid run -d` prints the id of a new one"
    ))
}
