//! What time, and the end of other jobs, make true of one that waits.

use bus::{
    ids::{EventId, JobId},
    job::{self, DependencyState, Job, Phase, decide},
    log::read,
    spec::policy::{Clock, Dependency},
};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use tracing::{debug, info, warn};

use super::{Done, Hands, chain, event_words, not_appended};

/// How many of the jobs that another one waits for are read at once.
const READ_AT_ONCE: usize = 16;

/// What is to be done about a job that waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Say(job::Command),
    Later(DateTime<Utc>),
    Nothing,
}

/// How a dependency stands: met or not as far as its last known event tells, or never to be met.
enum Answer {
    Met(bool),
    Never(String),
    /// It could not be read.
    Unknown,
}

/// From a job as the log tells it, whether the jobs it waited for are known to have ended as they must, and the time.
pub(crate) fn wish(job: &Job, met: bool, now: DateTime<Utc>) -> Wish {
    let release = match job.phase {
        Phase::Held { until } if met => Some((until.unwrap_or(now), job::Command::Release)),
        _ => None,
    };
    // What is too late is not made ready any more, nor does it wait for a slot.
    let late = job.deadline.filter(|deadline| *deadline <= now);
    let due = job.due().map(|due| match late {
        Some(deadline) => (deadline, job::Command::Expire { clock: Clock::Total }),
        None => (due.at, due.command),
    });
    let release = release.filter(|_| late.is_none());
    match due.into_iter().chain(release).min_by_key(|(at, _)| *at) {
        Some((at, command)) if at <= now => Wish::Say(command),
        Some((at, _)) => Wish::Later(at),
        None => Wish::Nothing,
    }
}

impl Hands {
    /// Looks whether something is due for a job, and says it.
    pub(super) async fn look(&self, id: JobId, known: u64, met: bool) -> Done {
        let Some(history) = self.history(id, known).await else {
            return Done::Failed;
        };
        let Some(job) = Job::replay(&history) else {
            return Done::Looked(known, None);
        };
        match wish(&job, met, Utc::now()) {
            // It holds no slot, and only the window gives it one.
            Wish::Say(job::Command::Release) if job.is_windowed() => {
                Done::Turn(job.sequence, job.deadline, job.attempts.last().map(|last| last.number))
            }
            Wish::Say(command) => self.say_due(&job, &history, command).await,
            Wish::Later(at) => Done::Looked(job.sequence, Some(at)),
            Wish::Nothing => Done::Looked(job.sequence, None),
        }
    }

    async fn say_due(&self, job: &Job, history: &[job::Recorded], command: job::Command) -> Done {
        let event = match decide(Some(job), command) {
            Ok(event) => event,
            Err(rejection) => {
                debug!(job.id = %job.id, "nothing is due for job {}: {rejection}", job.id);
                return Done::Looked(job.sequence, None);
            }
        };
        let (id, words) = (job.id, event_words(&event));
        let usual = matches!(event, job::JobEvent::Released(_));
        let because: Option<EventId> = history.last().map(|last| last.envelope.id);
        match self.say(history, event, because).await {
            Ok(sequence) => {
                if usual {
                    debug!(job.id = %id, "{words} job {id}");
                } else {
                    info!(job.id = %id, "{words} job {id}");
                }
                Done::Said(sequence)
            }
            Err(error) => not_appended(&format!("that job {id} is {words}"), &error),
        }
    }

    /// Asks the log about the jobs that this one waits for. If one of them can never end as it must, the job is cancelled.
    pub(super) async fn ask(&self, id: JobId, known: u64, of: Vec<(JobId, u64)>) -> Done {
        let Some(history) = self.history(id, known).await else {
            return Done::Failed;
        };
        let Some(job) = Job::replay(&history).filter(|job| !job.dependencies().is_empty()) else {
            let sequence = history.last().map_or(known, |last| last.sequence);
            return Done::Looked(sequence, None);
        };
        let asked = of.into_iter().filter_map(|(other, known)| {
            let dependency = job.dependencies().iter().find(|dependency| dependency.job == other)?;
            Some((dependency.clone(), known))
        });
        let answers = stream::iter(asked.collect::<Vec<_>>())
            .map(|(dependency, known)| self.answer(&job, dependency, known))
            .buffered(READ_AT_ONCE);
        let answers = answers.collect::<Vec<_>>().await;
        let mut met = Vec::with_capacity(answers.len());
        for (other, known, answer) in answers {
            match answer {
                Answer::Met(is) => met.push((other, known, is)),
                Answer::Never(reason) => {
                    let reason = Some(reason);
                    return self.say_due(&job, &history, job::Command::Cancel { reason }).await;
                }
                Answer::Unknown => return Done::Failed,
            }
        }
        Done::Asked(met)
    }

    async fn answer(&self, job: &Job, dependency: Dependency, known: u64) -> (JobId, u64, Answer) {
        let answer = self.standing(job, &dependency, known).await;
        (dependency.job, known, answer)
    }

    async fn standing(&self, job: &Job, dependency: &Dependency, known: u64) -> Answer {
        if dependency.job == job.id {
            return Answer::Never("it was to follow itself".to_owned());
        }
        let other = match read::job(&self.bus.js, dependency.job).await {
            Ok(other) => other,
            Err(error) => {
                warn!(job.id = %job.id, "cannot read job {}, which job {} waits for: {}", dependency.job, job.id, chain(&error));
                return Answer::Unknown;
            }
        };
        // What we know of it already, the answer must hold.
        if other.as_ref().map_or(0, |other| other.sequence) < known {
            return Answer::Unknown;
        }
        // What is in another namespace is none of this one's business.
        let other = other.filter(|other| other.namespace == job.namespace);
        match dependency.state(other.as_ref()) {
            DependencyState::Met => Answer::Met(true),
            DependencyState::Pending => Answer::Met(false),
            DependencyState::Never(reason) => Answer::Never(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::{
        envelope::{Actor, Envelope},
        ids::{Attempt, default_token},
        spec::{
            JobSpec,
            policy::{DependsOn, Start},
        },
    };

    use super::*;

    fn submitted(change: impl FnOnce(&mut JobSpec)) -> Job {
        let mut spec = JobSpec::new(vec!["true".to_owned()]);
        change(&mut spec);
        let held = spec.start.is_some();
        let event = decide(None, job::Command::Submit { spec: Box::new(spec) }).expect("new");
        let recorded = job::Recorded {
            namespace: default_token(),
            job: JobId::new(),
            publisher: held.then_some(Actor::Api),
            sequence: 7,
            envelope: Envelope::new(Actor::Api, event),
        };
        Job::replay([&recorded]).expect("submitted")
    }

    #[test]
    fn what_is_wished_of_a_job_that_waits() {
        let after = || {
            vec![Dependency {
                job: JobId::new(),
                on: DependsOn::Ended,
            }]
        };
        let delayed = submitted(|spec| {
            spec.start = Some(Start {
                delay_ms: Some(1_000),
                ..Start::default()
            });
        });
        let (early, late) = (
            delayed.submitted_at + Duration::from_millis(999),
            delayed.submitted_at + Duration::from_secs(1),
        );
        assert_eq!(wish(&delayed, false, early), Wish::Later(late));
        assert_eq!(wish(&delayed, false, late), Wish::Say(job::Command::Release));

        let follower = submitted(|spec| {
            spec.start = Some(Start {
                after: after(),
                ..Start::default()
            });
        });
        assert_eq!(wish(&follower, false, late), Wish::Nothing);
        assert_eq!(wish(&follower, true, late), Wish::Say(job::Command::Release));

        let both = submitted(|spec| {
            spec.start = Some(Start {
                delay_ms: Some(60_000),
                after: after(),
                ..Start::default()
            });
            spec.total_timeout_ms = Some(90_000);
        });
        let at = |seconds| both.submitted_at + Duration::from_secs(seconds);
        assert_eq!(wish(&both, false, at(61)), Wish::Later(at(90)));
        assert_eq!(wish(&both, true, at(59)), Wish::Later(at(60)));
        assert_eq!(wish(&both, true, at(61)), Wish::Say(job::Command::Release));
        let expire = job::Command::Expire { clock: Clock::Total };
        assert_eq!(wish(&both, false, at(90)), Wish::Say(expire));

        let plain = submitted(|_| {});
        assert_eq!(wish(&plain, true, at(1_000_000)), Wish::Nothing, "it waits for a worker, for ever");
    }

    #[test]
    fn a_member_that_waits_for_its_turn_gets_too_late_as_any_other() {
        let member = submitted(|spec| {
            spec.start = Some(Start {
                window: true,
                ..Start::default()
            });
            spec.total_timeout_ms = Some(1_000);
        });
        let paused = Job {
            phase: Phase::Retrying {
                next: Attempt(2),
                due: member.submitted_at,
            },
            ..member
        };
        let after = |ms| wish(&paused, false, paused.submitted_at + Duration::from_millis(ms));
        assert_eq!(after(999), Wish::Say(job::Command::Release));
        assert_eq!(after(1_000), Wish::Say(job::Command::Expire { clock: Clock::Total }));
    }
}
