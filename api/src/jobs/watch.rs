//! A job as it is now, and as it becomes.

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
    events::waiters::{Waiter, Woken},
};

/// The pause before a read that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often, and with what pause, a follower of the log is asked for what its leader has.
const BEHIND: (u32, Duration) = (40, Duration::from_millis(50));

/// Reads a job back from the log; nothing where there is no such job.
pub(crate) async fn read_job(app: &App, id: JobId) -> Result<Option<Job>, read::Error> {
    for _ in 0..BEHIND.0 {
        let job = read::job(&app.bus.js, id).await?;
        // With replicas, the one that answers may be behind; its leader is not.
        if job.is_some() || app.replicas < 2 || !leader_has(&app.bus.js, id).await {
            return Ok(job);
        }
        tokio::time::sleep(BEHIND.1).await;
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

/// A job that is kept current.
#[derive(Debug)]
pub(crate) struct Watch {
    waiter: Waiter,
    job: Job,
    /// Whether the job must be read again: kept here, so that a change which was waited for half-way is not lost.
    stale: bool,
}

impl Watch {
    /// Begins to watch a job.
    pub(crate) async fn open(app: &App, id: JobId) -> Result<Self, ApiError> {
        let waiter = app.waiters.register(id);
        let job = read_job(app, id).await?.ok_or_else(|| unknown(id))?;
        Ok(Self { waiter, job, stale: false })
    }

    /// The job, as far as is known.
    pub(crate) const fn job(&self) -> &Job {
        &self.job
    }

    /// Waits until something happens to the job, over every outage. Loses nothing when dropped half-way.
    ///
    /// # Errors
    /// If something happened that this program cannot read.
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
            // That nothing is missed is checked once for everybody: see `Waiters::looked`.
            match self.waiter.woken().await {
                Woken::Fact(fact) if fact.sequence <= self.job.sequence => {}
                Woken::Fact(fact) => {
                    if self.follows(&fact) {
                        return Ok(());
                    }
                    self.stale = true;
                }
                Woken::Reset => self.stale = true,
            }
        }
    }

    /// Takes a fact for the job's next event, if it is that.
    fn follows(&mut self, fact: &crate::events::waiters::Fact) -> bool {
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

/// The problem of asking for a job that is not there.
pub(crate) fn unknown(id: JobId) -> ApiError {
    ApiError::not_found(format!(
        "there is no job {id}; `rgrid list` shows the jobs, and `rgrid run -d` prints the id of a new one"
    ))
}
