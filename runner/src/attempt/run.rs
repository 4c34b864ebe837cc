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
        commit::{conclude, log_end},
        context::Context,
        end::NotCommitted,
        execute::execute,
        fence,
        registry::{Entry, StopReason},
        slot::SlotRequest,
        writer::{self, JobWriter},
    },
    errors::chain,
};

/// After how long a job is delivered again whose fenced attempt is still ending here.
const STILL_ENDING_PAUSE: Duration = Duration::from_millis(100);
/// After how long a job is delivered again where the log has no room for an attempt.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// The size of an attempt in the log, in bytes, roughly: its claim, its start and its end.
const ATTEMPT_BYTES: u64 = 4_096;

/// Claims a job, executes the attempt and commits its result. Every failure ends in an event, or in a log line that says why there is
/// none.
pub(crate) async fn run(context: Arc<Context>, work: Work, job: Job, ready: Envelope<JobEvent>, request: SlotRequest) {
    let Phase::Queued { next: attempt } = job.phase else {
        return work.acknowledge().await;
    };
    let (id, namespace) = (job.id, job.namespace.clone());
    let mut entry = match context.attempts.enter(id, attempt) {
        Ok(entry) => entry,
        // An earlier attempt was given up, and still runs here: it must end before the next one starts.
        Err(known) if known < attempt => {
            context.attempts.stop(id, StopReason::Fenced);
            return work.refuse(STILL_ENDING_PAUSE).await;
        }
        // This session's own claim, delivered again because the acknowledgement was late.
        Err(_) => return work.acknowledge().await,
    };
    // Reserved until the claim is stored. The events that end an attempt have room beyond the limit for claims.
    let Ok(room) = context.gauge.admit(Addition::Attempts, ATTEMPT_BYTES).await else {
        debug!(job.id = %id, "did not claim job {id}: the log has room only for the ends of jobs");
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
        // If the claim is stored after all, the watcher reschedules it with the session that has ended.
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
            warn!(job.id = %id, "cannot claim job {id}: {}", chain(&failed));
            return;
        }
    }
    debug!(job.id = %id, "claimed job {id}, attempt {attempt}");
    let ended = tokio::select! {
        ended = carry_out(&context, &mut writer, entry, attempt, request) => ended,
        never = fence::watch(&context, namespace, id, attempt) => match never {},
    };
    log_end(id, attempt, ended);
}

/// Executes a claimed attempt, and commits its result or returns the job.
async fn carry_out(
    context: &Context,
    writer: &mut JobWriter,
    mut entry: Entry,
    attempt: Attempt,
    request: SlotRequest,
) -> Result<State, NotCommitted> {
    let begun = Instant::now();
    let executed = Box::pin(execute(context, writer, &mut entry, attempt, request)).await;
    conclude(context, writer, entry, attempt, begun, executed).await
}
