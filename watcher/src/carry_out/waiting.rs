//! Commands about jobs that wait: for a time, for other jobs, or for a slot of their batch.

use bus::{
    ids::{EventId, JobId},
    job::{self, DependencyState, Job, Phase},
    log::{
        read,
        writer::{Loaded, Outcome},
    },
    spec::policy::{Clock, Dependency},
};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use tracing::{debug, info, warn};

use super::{Effect, Handler, last_event, loaded, not_appended, verb};
use crate::error::chain;

/// How many dependencies of a job are read at once.
const READ_AT_ONCE: usize = 16;

/// What is due for a job that waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now(job::Command),
    Later(DateTime<Utc>),
    Never,
}

/// Whether a dependency is met by the last event of its job, or can never be met.
enum Answer {
    Met(bool),
    Never(String),
    /// It could not be read.
    Unknown,
}

/// Says what is due for a job. `met`: the jobs that it depends on are known to have ended as it requires. Pure.
pub(crate) fn due(job: &Job, met: bool, now: DateTime<Utc>) -> Due {
    let release = match job.phase {
        Phase::Held { until } if met => Some((until.unwrap_or(now), job::Command::Release)),
        _ => None,
    };
    // A job past its deadline is not made ready any more, and does not wait for a slot.
    let late = job.deadline.filter(|deadline| *deadline <= now);
    let due = job.due().map(|due| match late {
        Some(deadline) => (deadline, job::Command::Expire { clock: Clock::Total }),
        None => (due.at, due.command),
    });
    let release = release.filter(|_| late.is_none());
    match due.into_iter().chain(release).min_by_key(|(at, _)| *at) {
        Some((at, command)) if at <= now => Due::Now(command),
        Some((at, _)) => Due::Later(at),
        None => Due::Never,
    }
}

impl Handler {
    /// Looks whether something is due for a job, and appends it.
    pub(super) async fn check_job(&self, id: JobId, known: u64, met: bool) -> Effect {
        let Some(history) = self.history(id, known).await else {
            return Effect::Failed;
        };
        let loaded = loaded(&history);
        let Some(job) = &loaded.state else {
            return Effect::NotDue(known, None);
        };
        match due(job, met, Utc::now()) {
            // It holds no slot, and only the window gives it one.
            Due::Now(job::Command::Release) if job.is_windowed() => {
                Effect::WaitsForSlot(job.sequence, job.deadline, job.attempts.last().map(|last| last.number))
            }
            Due::Now(command) => self.append_due(id, loaded, command, last_event(&history)).await,
            Due::Later(at) => Effect::NotDue(job.sequence, Some(at)),
            Due::Never => Effect::NotDue(job.sequence, None),
        }
    }

    async fn append_due(&self, id: JobId, loaded: Loaded<Job>, command: job::Command, cause: Option<EventId>) -> Effect {
        match self.writer.write_once(&id, loaded, &command, cause).await {
            Ok(Outcome::Appended(_, sequence)) if matches!(command, job::Command::Release) => {
                debug!(job.id = %id, "released job {id}");
                Effect::Appended(sequence)
            }
            Ok(Outcome::Appended(job, sequence)) => {
                info!(job.id = %id, "{} job {id}", verb(job.as_ref()));
                Effect::Appended(sequence)
            }
            Ok(Outcome::Rejected(_, last, rejection)) => {
                debug!(job.id = %id, "nothing is due for job {id}: {rejection}");
                Effect::NotDue(last, None)
            }
            Err(error) => not_appended(&format!("what is due for job {id}"), &error),
        }
    }

    /// Reads the jobs that this one depends on. If one of them can never end as this job requires, this job is cancelled.
    pub(super) async fn check_dependencies(&self, id: JobId, known: u64, of: Vec<(JobId, u64)>) -> Effect {
        let Some(history) = self.history(id, known).await else {
            return Effect::Failed;
        };
        let Some(job) = Job::replay(&history).filter(|job| !job.dependencies().is_empty()) else {
            let sequence = history.last().map_or(known, |last| last.sequence);
            return Effect::NotDue(sequence, None);
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
                    let cancel = job::Command::Cancel { reason: Some(reason) };
                    return self.append_due(id, loaded(&history), cancel, last_event(&history)).await;
                }
                Answer::Unknown => return Effect::Failed,
            }
        }
        Effect::Dependencies(met)
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
                warn!(job.id = %job.id, "cannot read job {}, which job {} depends on: {}", dependency.job, job.id, chain(&error));
                return Answer::Unknown;
            }
        };
        // A replica that lags may have answered: the events that are known must be in the answer.
        if other.as_ref().map_or(0, |other| other.sequence) < known {
            return Answer::Unknown;
        }
        // A job of another namespace counts as absent.
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
        job::decide,
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
    fn what_is_due_for_a_job_that_waits() {
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
        assert_eq!(due(&delayed, false, early), Due::Later(late));
        assert_eq!(due(&delayed, false, late), Due::Now(job::Command::Release));

        let follower = submitted(|spec| {
            spec.start = Some(Start {
                after: after(),
                ..Start::default()
            });
        });
        assert_eq!(due(&follower, false, late), Due::Never);
        assert_eq!(due(&follower, true, late), Due::Now(job::Command::Release));

        let both = submitted(|spec| {
            spec.start = Some(Start {
                delay_ms: Some(60_000),
                after: after(),
                ..Start::default()
            });
            spec.total_timeout_ms = Some(90_000);
        });
        let at = |seconds| both.submitted_at + Duration::from_secs(seconds);
        assert_eq!(due(&both, false, at(61)), Due::Later(at(90)));
        assert_eq!(due(&both, true, at(59)), Due::Later(at(60)));
        assert_eq!(due(&both, true, at(61)), Due::Now(job::Command::Release));
        let expire = job::Command::Expire { clock: Clock::Total };
        assert_eq!(due(&both, false, at(90)), Due::Now(expire));

        let plain = submitted(|_| {});
        assert_eq!(due(&plain, true, at(1_000_000)), Due::Never, "it waits for a worker permanently");
    }

    #[test]
    fn a_member_that_waits_for_a_slot_expires_as_any_other() {
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
                due: None,
            },
            ..member
        };
        let after = |ms| due(&paused, false, paused.submitted_at + Duration::from_millis(ms));
        assert_eq!(after(999), Due::Now(job::Command::Release));
        assert_eq!(after(1_000), Due::Now(job::Command::Expire { clock: Clock::Total }));
    }
}
