//! One session of a runner, from its registration to its end.

use std::{sync::Arc, time::Duration};

use bus::{ids::Queue, log::append, worker::WorkerEvent};
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    attempt::{context::Context, leave::give_up, registry::StopReason, room::Room},
    config::Config,
    errors::chain,
    executor::docker,
    restart::{self, note::Note},
    session::{
        ending::Ending,
        heartbeat::Heartbeats,
        inventory,
        mode::RunnerSignals,
        presence::{self, LastTime, SessionStatus},
        serve::Session,
    },
};

/// How long the parts of a session may take to end once its commands are killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// One session: registers it, sends its heartbeats, serves, and ends it.
///
/// The note is taken once its session continues or is over; until then it stays for the next try.
///
/// # Errors
/// If the session cannot be registered.
pub(crate) async fn run(
    config: &Config,
    context: &Arc<Context>,
    signals: &RunnerSignals,
    note: &mut Option<Note>,
) -> Result<Ending, append::Error> {
    let total = Room {
        cpu_milli: config.cpu_milli,
        memory_bytes: config.memory_bytes,
    };
    let status = Arc::new(Mutex::new(SessionStatus {
        free: total,
        wants_work: false,
    }));
    let tracker = TaskTracker::new();
    let mut session = match Session::begin(Arc::clone(context), &config.queues, total, Arc::clone(&status), tracker.clone()).await {
        Ok(session) => session,
        Err(error) => return Ok(Ending::Broken(chain(&error))),
    };
    let registration = presence::registration(config, context.session, &context.executors);
    let registered = match &note {
        None => Some(
            context
                .writer
                .announce(&config.worker, WorkerEvent::Registered(registration))
                .await?,
        ),
        Some(_) => match restart::session::register(context, registration).await {
            Ok(registered) => registered,
            Err(restart::session::Error::Append(error)) => return Err(error),
            Err(error @ restart::session::Error::Read(_)) => return Ok(Ending::Broken(chain(&error))),
        },
    };
    let (last_claim, left) = note.take().map(|note| (note.last_claim, note.attempts)).unwrap_or_default();
    let Some((sequence, registered_at)) = registered else {
        left.into_iter().for_each(|left| give_up(context, left, "its session is over"));
        Note::discard(&config.work_dir);
        return Ok(Ending::GivenUp);
    };
    // Before the first heartbeat, which must list them.
    let containers = left.iter().map(|left| left.command.container.clone()).collect();
    if let Err(error) = docker::kept::note_taken_over(&config.work_dir, containers) {
        warn!(
            "cannot note in {} which containers this runner continues: {error}",
            config.work_dir.display()
        );
    }
    for resumed in restart::session::resume(context, left).await {
        session.resume(resumed);
    }
    context.attempts.claimed(last_claim);
    Note::discard(&config.work_dir);
    let (acknowledged, quiet) = (LastTime::now(), CancellationToken::new());
    if let Some(limit) = config.self_fence {
        let fence = presence::self_fence(Arc::clone(context), acknowledged.clone(), limit, signals.unacknowledged.clone());
        tracker.spawn(quiet.clone().run_until_cancelled_owned(fence));
    }
    if let Some(limit) = config.self_fence {
        info!(
            "ending what runs when NATS has not acknowledged a heartbeat for {:.1} s",
            limit.as_secs_f32()
        );
    }
    // The deployment's runtimes must be known before the first job.
    if let Err(error) = context.executors.runtimes.read(&context.js).await {
        debug!("cannot read yet which runtimes the deployment has: {error}");
    }
    tracker.spawn(
        quiet
            .clone()
            .run_until_cancelled_owned(inventory::keep(Arc::clone(context), registered_at)),
    );
    let heartbeats = Heartbeats::new(context, config, status, acknowledged);
    match heartbeats.clone().start_thread(&config.nats, quiet.clone()) {
        Ok(beats) => drop(tracker.spawn(beats)),
        Err(error) => warn!("cannot start the heartbeat thread: {error}"),
    }
    let beats = tracker.spawn(heartbeats.run(quiet.clone()));
    info!(
        "worker {} serves {} with {} CPUs",
        config.worker,
        list(&config.queues),
        f64::from(config.cpu_milli) / 1000.0
    );

    let ending = match session.registered(sequence).await {
        Ok(()) => session.serve(signals).await,
        Err(error) => Ending::Broken(chain(&error)),
    };
    drop(session);
    let continues = ending == Ending::Restarting && restart::session::leave(config, context).await;
    if continues {
        // The watcher ignores its silence, but not heartbeats that no longer list an attempt.
        quiet.cancel();
    }
    end_attempts(&ending, context, &tracker, &quiet).await;
    if !continues && matches!(ending, Ending::Stopped | Ending::Restarting | Ending::Drained) {
        presence::leave(context).await;
    }
    quiet.cancel();
    let _ = tokio::time::timeout(END_TIMEOUT, async { tokio::join!(beats, context.files.settled()) }).await;
    Ok(ending)
}

/// Ends the attempts of a session: at once where the session was taken from this runner, with grace where this runner ends it.
async fn end_attempts(ending: &Ending, context: &Context, tracker: &TaskTracker, quiet: &CancellationToken) {
    tracker.close();
    let (stop, patience) = match ending {
        Ending::Stopped | Ending::Drained | Ending::Restarting => (StopReason::Shutdown, context.grace + END_TIMEOUT),
        // The next session's registration ends this one, and the watcher reschedules its attempts.
        Ending::Broken(_) | Ending::Lost | Ending::GivenUp | Ending::Unacknowledged | Ending::Replaced(_) => {
            (StopReason::Fenced, END_TIMEOUT)
        }
    };
    context.attempts.stop_all(stop);
    if stop == StopReason::Fenced {
        quiet.cancel();
    }
    let ended = async {
        // The heartbeats are in the tracker too, and continue until the attempts have ended.
        while !context.attempts.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        quiet.cancel();
        tracker.wait().await;
    };
    if tokio::time::timeout(patience, ended).await.is_err() {
        warn!("some attempts did not end in time; the helper ends them when this process does");
        context.attempts.stop_all(StopReason::Fenced);
    }
}

fn list(queues: &[Queue]) -> String {
    queues.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
