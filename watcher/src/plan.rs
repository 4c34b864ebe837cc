//! Which commands follow from the state and the time. Pure.

mod command;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bus::{
    ids::{EventId, JobId},
    job::LossCause,
};
use chrono::{DateTime, Utc};

pub(crate) use self::command::Topic;
pub use self::command::{Command, Sign};
use crate::{
    observation::SessionKey,
    state::{Absence, Session, State},
    windows::BatchAction,
};

/// For how long a live session's heartbeats must leave out an attempt before it counts as orphaned. At one heartbeat a second, that
/// is four heartbeats; two while the session waits for work.
pub(crate) const ORPHAN_AFTER: Duration = Duration::from_millis(2_500);

/// How much longer than its self-fence time a session may be silent: it needs time to kill its processes.
pub(crate) const FENCE_MARGIN: Duration = Duration::from_secs(2);

/// Returns the commands that are due now, those about lost sessions first. It does not know which commands are under way already:
/// carrying one out twice does no harm.
#[must_use]
pub fn plan(state: &State, now: Instant, lapse: Duration) -> Vec<Command> {
    let (mut lost, mut attempts) = (Vec::new(), Vec::new());
    for (key, session) in state.open() {
        let silent = state.silence(key, session, now);
        // A session that fences itself gets the time to do so; one that restarts, the time that it announced.
        let lapse = session
            .self_fence
            .map_or(lapse, |fence| lapse.max(fence.saturating_add(FENCE_MARGIN)))
            .saturating_add(session.allowance());
        let away = state.is_away(session, now);
        let lapsed = silent > lapse && state.hears(now) && !away;
        let dead = session.self_fence.is_none() && !away && state.dead_since(key, session, now).is_some();
        let worker = key.0.clone();
        match &session.ended {
            Some(ended) => attempts.extend(give_up(key, session, &ended.cause, Some(ended.event), |_| true)),
            None if session.registered && (lapsed || dead) => lost.push(Command::DeclareLost {
                after: state.worker(&worker).map_or(0, |worker| worker.sequence),
                worker,
                session: key.1,
                sign: if lapsed { Sign::Silence } else { Sign::Disconnect },
                silent,
                last_beat: session.last_beat,
            }),
            None => {
                let cause = if lapsed {
                    LossCause::WorkerLost { worker }
                } else {
                    LossCause::Orphaned { worker }
                };
                let which = |absence: Option<Absence>| lapsed || absence.is_some_and(orphaned);
                attempts.extend(give_up(key, session, &cause, None, which));
            }
        }
    }
    // A lost session delays many jobs, so it comes first; there may be many batches and timers.
    let waiting = state.wall(now).into_iter().flat_map(|wall| waiting_commands(state, wall));
    lost.into_iter()
        .chain(attempts)
        .chain(batch_commands(state))
        .chain(waiting)
        .collect()
}

fn batch_commands(state: &State) -> impl Iterator<Item = Command> {
    state.windows.actions().flat_map(|(batch, window, action)| {
        let after = window.sequence;
        match action {
            BatchAction::Advance(members) => vec![Command::AdvanceWindow { batch, after, members }],
            BatchAction::Stop(failures) => vec![Command::StopBatch { batch, after, failures }],
            BatchAction::End(members, reason, running) => {
                let end = |index| Command::EndMember {
                    job: JobId::of_member(batch, index),
                    reason: reason.clone(),
                    running,
                };
                members.into_iter().map(end).collect()
            }
        }
    })
}

fn waiting_commands(state: &State, wall: DateTime<Utc>) -> impl Iterator<Item = Command> {
    let jobs = state
        .timers
        .due(wall)
        .map(|(job, known, met)| Command::CheckJob { job, known, met });
    let dependencies = state
        .timers
        .to_check()
        .map(|(job, known, of)| Command::CheckDependencies { job, known, of });
    jobs.chain(dependencies)
}

fn give_up(
    (worker, id): &SessionKey,
    session: &Session,
    cause: &LossCause,
    session_end: Option<EventId>,
    which: impl Fn(Option<Absence>) -> bool,
) -> impl Iterator<Item = Command> {
    session
        .held
        .iter()
        .filter(move |(_, held)| which(held.absence))
        .map(move |(&(job, attempt), held)| Command::GiveUp {
            job,
            attempt,
            worker: worker.clone(),
            session: *id,
            claimed: held.claimed,
            cause: cause.clone(),
            session_end,
        })
}

fn orphaned(absence: Absence) -> bool {
    absence.last.saturating_duration_since(absence.first) >= ORPHAN_AFTER
}
