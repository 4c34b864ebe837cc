//! Commands about batches, and about members of one.

use bus::{
    batch::{self, Batch},
    ids::{Attempt, BatchId, JobId, Namespace},
    job::{self, Job, JobEvent, Phase, decide},
    log::{
        read,
        writer::{Aggregate as _, Loaded, Outcome},
    },
};
use futures::{StreamExt as _, stream};
use tracing::{debug, info, warn};

use super::{Effect, Handler, last_event, loaded, not_appended};
use crate::error::chain;

/// How many members are read at once.
const READ_AT_ONCE: usize = 16;

impl Handler {
    /// Gives slots to members: the batch's event and theirs are stored together, or none of them is.
    pub(super) async fn advance_window(&self, id: BatchId, after: u64, members: Vec<u32>) -> Effect {
        let read = async |index| (index, read::history(&self.bus.js, JobId::of_member(id, index)).await);
        let histories = stream::iter(members).map(read).buffered(READ_AT_ONCE).collect::<Vec<_>>();
        let (batch, histories) = tokio::join!(self.batch(id, after), histories);
        let (loaded, namespace) = match batch {
            Ok(batch) => batch,
            Err(done) => return done,
        };
        let mut ready = Vec::with_capacity(histories.len());
        for (index, history) in histories {
            match history {
                Ok(history) => ready.extend(ReadyMember::of(index, &namespace, &history)),
                Err(error) => {
                    warn!("cannot read member {index} of batch {id}: {}", chain(&error));
                    return Effect::Failed;
                }
            }
        }
        if ready.is_empty() {
            // The events that stopped them from being released are on their way to this watcher.
            return Effect::Overtaken;
        }
        let released = ready.iter().map(|member| member.index).collect();
        let mut events = self.writer.atomic();
        let advanced = match events.add(&id, &loaded, &batch::Command::Advance { released }, None) {
            Ok(event) => event,
            Err(rejection) => {
                debug!("the window of batch {id} does not move: {rejection}");
                return Effect::Overtaken;
            }
        };
        for member in &ready {
            if let Err(rejection) = events.add(&member.id, &member.loaded, &job::Command::Release, Some(advanced)) {
                debug!(job.id = %member.id, "cannot release job {}: {rejection}", member.id);
                return Effect::Overtaken;
            }
        }
        match events.commit().await {
            Ok((first, last)) => {
                debug!("gave slots of batch {id} to {} members", ready.len());
                let attempts = ready.into_iter().map(|member| (member.index, member.attempt));
                Effect::Advanced(first, last, attempts.collect())
            }
            Err(error) => not_appended(&format!("that batch {id} advances"), &error),
        }
    }

    /// Stops a batch.
    pub(super) async fn stop_batch(&self, id: BatchId, after: u64, failures: u32) -> Effect {
        let loaded = match self.batch(id, after).await {
            Ok((loaded, _)) => loaded,
            Err(done) => return done,
        };
        match self.writer.write_once(&id, loaded, &batch::Command::Stop { failures }, None).await {
            Ok(Outcome::Appended(_, sequence)) => {
                info!("stopped batch {id}: {failures} of its members failed");
                Effect::Stopped(sequence, failures)
            }
            Ok(Outcome::Rejected(..)) => Effect::Overtaken,
            Err(error) => not_appended(&format!("that batch {id} is stopped"), &error),
        }
    }

    /// Ends a member of a batch that is over, unless it runs and is to be left alone.
    pub(super) async fn end_member(&self, id: JobId, reason: String, running: bool) -> Effect {
        let history = match read::history(&self.bus.js, id).await {
            Ok(history) => history,
            Err(error) => {
                warn!(job.id = %id, "cannot read job {id} to end it: {}", chain(&error));
                return Effect::Failed;
            }
        };
        let loaded = loaded(&history);
        let Some(job) = &loaded.state else {
            return Effect::MemberEnded { absent: true };
        };
        if !running && matches!(job.phase, Phase::Claimed { .. } | Phase::Running { .. }) {
            return Effect::MemberEnded { absent: false };
        }
        let command = job::Command::Cancel { reason: Some(reason) };
        match self.writer.write_once(&id, loaded, &command, last_event(&history)).await {
            Ok(_) => Effect::MemberEnded { absent: false },
            Err(error) => not_appended(&format!("that job {id} is cancelled"), &error),
        }
    }

    /// A batch as the log has it, and its namespace, if its last event is the one that is known.
    async fn batch(&self, id: BatchId, after: u64) -> Result<(Loaded<Batch>, Namespace), Effect> {
        match Batch::load(&self.bus.js, &id).await {
            Ok(loaded) => match &loaded.state {
                Some(batch) if loaded.last == after => {
                    let namespace = batch.namespace.clone();
                    Ok((loaded, namespace))
                }
                _ => Err(Effect::Overtaken),
            },
            Err(error) => {
                warn!("cannot read batch {id}: {}", chain(&error));
                Err(Effect::Failed)
            }
        }
    }
}

/// A member that waits for a slot.
struct ReadyMember {
    index: u32,
    /// The attempt that its slot is for.
    attempt: Attempt,
    id: JobId,
    loaded: Loaded<Job>,
}

impl ReadyMember {
    /// A member of a batch of this namespace, by its history, if it waits for a slot.
    fn of(index: u32, namespace: &Namespace, history: &[job::Recorded]) -> Option<Self> {
        let mut loaded = loaded(history);
        let job = loaded.state.as_mut()?;
        let (id, released) = (job.id, decide(Some(job), job::Command::Release));
        let Ok(JobEvent::Released(released)) = released else {
            debug!(job.id = %id, "job {id}, a member of a batch, does not wait for a slot");
            return None;
        };
        job.namespace.clone_from(namespace);
        Some(Self {
            index,
            attempt: released.attempt,
            id,
            loaded,
        })
    }
}
