//! What should be done, from what is known and what time it is.

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
    seen::SessionKey,
    state::{Absence, Session, State},
    windows::Want,
};

/// A live session's heartbeats must leave an attempt out for so long before it is an orphan. At one a second, that is four; two
/// where it waits for work.
pub(crate) const ORPHAN_AFTER: Duration = Duration::from_millis(2_500);

/// How much longer than it needs to fence itself a session may be silent: its processes have to be killed.
pub(crate) const FENCE_MARGIN: Duration = Duration::from_secs(2);

/// Says what should be done now, dead workers first. It takes no account of what is being done already: to do it twice does no harm.
#[must_use]
pub fn plan(state: &State, now: Instant, lapse: Duration) -> Vec<Command> {
    let (mut lost, mut attempts) = (Vec::new(), Vec::new());
    for (key, session) in state.open() {
        let silent = state.silence(key, session, now);
        // Who fences itself must have had the time for it, and who restarts the time that it asked for.
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
            None if session.registered && (lapsed || dead) => lost.push(Command::Lose {
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
    // A session that is lost holds up many jobs, and its jobs wait for nothing else; batches and timers may be many.
    let waiting = state.wall(now).into_iter().flat_map(|wall| due(state, wall));
    lost.into_iter().chain(attempts).chain(of_batches(state)).chain(waiting).collect()
}

fn of_batches(state: &State) -> impl Iterator<Item = Command> {
    state.windows.wants().flat_map(|(batch, window, want)| {
        let after = window.sequence;
        match want {
            Want::Advance(members) => vec![Command::Advance { batch, after, members }],
            Want::Stop(failures) => vec![Command::Stop { batch, after, failures }],
            Want::End(members, reason, running) => {
                let end = |index| Command::End {
                    job: JobId::of_member(batch, index),
                    reason: reason.clone(),
                    running,
                };
                members.into_iter().map(end).collect()
            }
        }
    })
}

fn due(state: &State, wall: DateTime<Utc>) -> impl Iterator<Item = Command> {
    let looks = state.timers.due(wall).map(|(job, known, met)| Command::Look { job, known, met });
    let asks = state.timers.asking().map(|(job, known, of)| Command::Ask { job, known, of });
    looks.chain(asks)
}

fn give_up(
    (worker, id): &SessionKey,
    session: &Session,
    cause: &LossCause,
    because: Option<EventId>,
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
            because,
        })
}

fn orphaned(absence: Absence) -> bool {
    absence.last.saturating_duration_since(absence.first) >= ORPHAN_AFTER
}
