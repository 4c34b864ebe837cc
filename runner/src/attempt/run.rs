//! One attempt, from its claim to its commit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    envelope::Envelope,
    ids::Attempt,
    job::{Command, Job, JobEvent, Phase, State},
    log::{room::Addition, work::Work},
};
use tracing::{debug, warn};

use crate::{
    attempt::{
        commit::{conclude, told},
        context::Context,
        end::Unfinished,
        execute::execute,
        fence,
        registry::{Entry, Stop},
        slot::Share,
        writer::{self, JobWriter},
    },
    errors::chain,
};

/// After how long a job may be offered again whose fenced attempt is still ending here.
const STILL_ENDING_PAUSE: Duration = Duration::from_millis(100);
/// After how long a job may be offered again that the log has no room for an attempt of.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// What an attempt adds to the log, in bytes, roughly: its claim, its start and its end.
const ATTEMPT_BYTES: u64 = 4_096;

/// Claims a job and carries its attempt through. Everything that goes wrong ends in an event, or in a log line that says why
/// there is none.
pub(crate) async fn run(context: Arc<Context>, work: Work, job: Job, ready: Envelope<JobEvent>, share: Share) {
    let Phase::Queued { next: attempt } = job.phase else {
        return work.acknowledge().await;
    };
    let (id, namespace) = (job.id, job.namespace.clone());
    let mut entry = match context.attempts.enter(id, attempt) {
        Ok(entry) => entry,
        // It was given up, and is to be made again, perhaps by us: not before it is gone.
        Err(known) if known < attempt => {
            context.attempts.stop(id, Stop::Fenced);
            return work.refuse(STILL_ENDING_PAUSE).await;
        }
        // Our own claim, delivered again because its acknowledgement was late.
        Err(_) => return work.acknowledge().await,
    };
    // Until the claim is stored; what ends it has room beyond the limit of claims.
    let Ok(room) = context.gauge.admit(Addition::Attempts, ATTEMPT_BYTES).await else {
        debug!(job.id = %id, "did not claim job {id}: the log has room only for what ends jobs");
        return work.refuse(NO_ROOM_PAUSE).await;
    };
    let mut writer = JobWriter::new(context.writer.clone(), job, &ready);
    let claim = Command::Claim {
        attempt,
        worker: context.worker.clone(),
        session: context.session,
    };
    let claimed = tokio::select! {
        claimed = writer.append(claim) => claimed,
        // Should it be stored after all, it is a closed session's, and rescheduled as such.
        _ = entry.fenced() => return,
    };
    drop(room);
    match claimed {
        Ok(sequence) => {
            context.attempts.claimed(sequence);
            work.acknowledge().await;
        }
        Err(writer::Error::Rejected(rejection)) => {
            debug!(job.id = %id, "did not claim job {id}: {rejection}");
            return work.acknowledge().await;
        }
        Err(failed) => {
            warn!(job.id = %id, "could not claim job {id}: {}", chain(&failed));
            return;
        }
    }
    debug!(job.id = %id, "claimed job {id}, attempt {attempt}");
    let carried = tokio::select! {
        carried = carry(&context, &mut writer, entry, attempt, share) => carried,
        never = fence::watch(&context, namespace, id, attempt) => match never {},
    };
    told(id, attempt, carried);
}

/// Runs a claimed attempt, and commits what came of it; or gives it back.
async fn carry(context: &Context, writer: &mut JobWriter, mut entry: Entry, attempt: Attempt, share: Share) -> Result<State, Unfinished> {
    let begun = Instant::now();
    let executed = Box::pin(execute(context, writer, &mut entry, attempt, share)).await;
    conclude(context, writer, entry, attempt, begun, executed).await
}
