//! What is to be said of a batch, and of members of one.

use bus::{
    batch::{self, Batch},
    envelope::{Actor, Envelope},
    ids::{Attempt, BatchId, EventId, JobId},
    job::{self, Job, JobEvent, Phase, decide},
    log::{append::Append, read},
};
use futures::{StreamExt as _, stream};
use tracing::{debug, info, warn};

use super::{Done, Hands, chain, event_words, not_appended};

/// Members that are read at once.
const READ_AT_ONCE: usize = 16;

impl Hands {
    /// Gives slots to members: the batch's event and theirs, or none of them.
    pub(super) async fn advance(&self, id: BatchId, after: u64, members: Vec<u32>) -> Done {
        let read = async |index| (index, read::history(&self.bus.js, JobId::of_member(id, index)).await);
        let histories = stream::iter(members).map(read).buffered(READ_AT_ONCE).collect::<Vec<_>>();
        let (batch, histories) = tokio::join!(self.batch(id, after), histories);
        let batch = match batch {
            Ok(batch) => batch,
            Err(done) => return done,
        };
        let mut ready = Vec::with_capacity(histories.len());
        for (index, history) in histories {
            match history {
                Ok(history) => ready.extend(release(index, &history)),
                Err(error) => {
                    warn!("cannot read member {index} of batch {id}: {}", chain(&error));
                    return Done::Failed;
                }
            }
        }
        let released = ready.iter().map(|(index, ..)| *index).collect::<Vec<_>>();
        if released.is_empty() {
            // What keeps them from it we hear in a moment.
            return Done::Overtaken;
        }
        let event = match batch::decide(Some(&batch), batch::Command::Advance { released }) {
            Ok(event) => event,
            Err(rejection) => {
                debug!("the window of batch {id} does not move: {rejection}");
                return Done::Overtaken;
            }
        };
        let envelope = Envelope::new(Actor::Watcher, event);
        let mut appends = vec![Append::batch(&batch.namespace, id, batch.sequence, &envelope)];
        appends.extend(ready.iter().map(|(_, _, job, event)| {
            let released = Envelope {
                causation_id: Some(envelope.id),
                correlation_id: Some(job.first),
                ..Envelope::new(Actor::Watcher, event.clone())
            };
            Append::job(&batch.namespace, job.id, job.sequence, &released)
        }));
        let stored = async {
            let _room = self.room(appends.iter().map(Append::weight).sum()).await?;
            self.log.append_all(&appends).await
        };
        match stored.await {
            Ok(last) => {
                let first = last + 1 - appends.len() as u64;
                debug!("gave slots of batch {id} to {} members", ready.len());
                Done::Advanced(
                    first,
                    last,
                    ready.into_iter().map(|(index, attempt, ..)| (index, attempt)).collect(),
                )
            }
            Err(error) => not_appended(&format!("that batch {id} advances"), &error),
        }
    }

    /// Stops a batch.
    pub(super) async fn stop(&self, id: BatchId, after: u64, failures: u32) -> Done {
        let batch = match self.batch(id, after).await {
            Ok(batch) => batch,
            Err(done) => return done,
        };
        let Ok(event) = batch::decide(Some(&batch), batch::Command::Stop { failures }) else {
            return Done::Overtaken;
        };
        let envelope = Envelope::new(Actor::Watcher, event);
        match self
            .log
            .append(Append::batch(&batch.namespace, id, batch.sequence, &envelope))
            .await
        {
            Ok(sequence) => {
                info!("stopped batch {id}: {failures} of its members failed");
                Done::Stopped(sequence, failures)
            }
            Err(error) => not_appended(&format!("that batch {id} is stopped"), &error),
        }
    }

    /// Ends a member of a batch that is over, unless it runs and is to be left alone.
    pub(super) async fn end(&self, id: JobId, reason: String, running: bool) -> Done {
        let history = match read::history(&self.bus.js, id).await {
            Ok(history) => history,
            Err(error) => {
                warn!(job.id = %id, "cannot read job {id}, which is to be ended: {}", chain(&error));
                return Done::Failed;
            }
        };
        let Some(job) = Job::replay(&history) else {
            return Done::SeenTo { absent: true };
        };
        let runs = matches!(job.phase, Phase::Claimed { .. } | Phase::Running { .. });
        let reason = Some(reason);
        let event = match decide(Some(&job), job::Command::Cancel { reason }) {
            Ok(event) if running || !runs => event,
            Ok(_) | Err(_) => return Done::SeenTo { absent: false },
        };
        let words = event_words(&event);
        let because: Option<EventId> = history.last().map(|last| last.envelope.id);
        match self.say(&history, event, because).await {
            Ok(_) => Done::SeenTo { absent: false },
            Err(error) => not_appended(&format!("that job {id} is {words}"), &error),
        }
    }

    /// A batch as the log tells it, if its last event is the one that is known.
    async fn batch(&self, id: BatchId, after: u64) -> Result<Batch, Done> {
        match read::batch(&self.bus.js, id).await {
            Ok(Some(batch)) if batch.sequence == after => Ok(batch),
            Ok(_) => Err(Done::Overtaken),
            Err(error) => {
                warn!("cannot read batch {id}: {}", chain(&error));
                Err(Done::Failed)
            }
        }
    }
}

/// What the next event of a member stands behind.
struct Behind {
    id: JobId,
    first: EventId,
    sequence: u64,
}

/// The release of a member, if it waits for that.
fn release(index: u32, history: &[job::Recorded]) -> Option<(u32, Attempt, Behind, JobEvent)> {
    let job = Job::replay(history)?;
    match decide(Some(&job), job::Command::Release) {
        Ok(event @ JobEvent::Released(_)) => {
            let attempt = match &event {
                JobEvent::Released(released) => released.attempt,
                _ => Attempt::FIRST,
            };
            let behind = Behind {
                id: job.id,
                first: history.first()?.envelope.id,
                sequence: job.sequence,
            };
            Some((index, attempt, behind, event))
        }
        Ok(_) | Err(_) => {
            debug!(job.id = %job.id, "job {}, a member of a batch, does not wait for a slot", job.id);
            None
        }
    }
}
