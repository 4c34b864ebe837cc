//! Events, and what a job waits for, in words.

use std::{fmt::Write as _, time::Duration};

use bus::{
    envelope::Event as _,
    ids::Attempt,
    job::{Finished, JobEvent, Outcome, State},
    spec::{
        JobSpec,
        policy::{Dependency, DependsOn, Start},
    },
};
use chrono::{DateTime, Local, Utc};
use model::{AttemptOutcome, HistoryEvent, INTERRUPTED, JobView, LostAttempt, RETURNED, describe, describe_expiry, describe_loss};

use super::{
    harmless::{one_line, typed},
    units::{clock, counted, duration, size},
};

/// What a job that is not ready waits for; nothing for one that is, or was.
pub(crate) fn describe_wait(job: &JobView, now: DateTime<Utc>) -> Option<String> {
    let left = job
        .due_at
        .map(|due| duration(due.signed_duration_since(now).to_std().unwrap_or_default()));
    match job.state {
        State::Held => {
            let time = job.due_at.filter(|due| *due > now || job.waits_for.is_empty());
            let until = time.zip(left).map(|(due, left)| format!("{} (in {left})", to_the_second(due)));
            let others = (!job.waits_for.is_empty()).then(|| describe_dependencies(&job.waits_for));
            let conditions: Vec<String> = until.into_iter().chain(others).collect();
            Some(format!("held until {}", conditions.join(", and until ")))
        }
        State::Retrying => {
            let failed = job.attempts.last().and_then(|attempt| attempt.outcome.as_ref());
            if let Some(AttemptOutcome::Lost(LostAttempt::Returned)) = failed {
                return Some("its worker has no room for it; it is waiting for another worker".to_owned());
            }
            if let Some(AttemptOutcome::Lost(LostAttempt::Interrupted)) = failed {
                return Some("its worker is shutting down; it is waiting for another worker".to_owned());
            }
            let how = match failed {
                Some(AttemptOutcome::Finished(Outcome::Failed { exit_code })) => format!("failed with exit code {exit_code}"),
                Some(AttemptOutcome::Finished(outcome)) => describe(outcome).unwrap_or_else(|| "failed".to_owned()),
                Some(AttemptOutcome::Lost(_)) | None => "failed".to_owned(),
            };
            let most = job.retry.as_ref().map_or(0, |retry| retry.max);
            let left = left.unwrap_or_default();
            Some(if job.failures == 0 {
                format!("{how}; retrying in {left}")
            } else {
                format!("{how}; retrying in {left} ({} of {most} retries)", job.failures)
            })
        }
        _ => None,
    }
}

fn describe_dependencies(others: &[Dependency]) -> String {
    match others {
        [
            Dependency {
                job,
                on: DependsOn::Succeeded,
            },
        ] => format!("job {job} has succeeded"),
        [Dependency { job, on: DependsOn::Ended }] => format!("job {job} has ended"),
        many => format!("{} other jobs have ended", many.len()),
    }
}

/// A time of day to the second, with its date, by this machine's clock.
fn to_the_second(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// What an event says, in words.
pub(crate) fn describe_event(event: &HistoryEvent) -> String {
    let unknown = || match &event.unreadable {
        Some(why) => format!(
            "{} {}; set aside: {}",
            event.r#type,
            one_line(&event.data.to_string(), 100),
            one_line(why, 200)
        ),
        None => format!("{} {}", event.r#type, event.data),
    };
    let Ok(raw) = serde_json::value::to_raw_value(&event.data) else {
        return unknown();
    };
    match JobEvent::decode(&event.r#type, &raw) {
        Ok(known) => describe_job_event(&known),
        Err(_) => unknown(),
    }
}

fn describe_job_event(event: &JobEvent) -> String {
    match event {
        JobEvent::Submitted(submitted) => format!("submitted: {}", describe_spec(&submitted.spec)),
        JobEvent::Claimed(claimed) => format!("attempt {} claimed by worker {}", claimed.attempt, claimed.worker),
        JobEvent::Started(started) => {
            let what = started.environment.as_deref().map(|what| format!(" in {what}")).unwrap_or_default();
            format!("attempt {} started, executor {}{what}", started.attempt, started.executor)
        }
        JobEvent::Finished(finished) => describe_end(finished),
        JobEvent::Returned(event) if event.interrupted => format!("attempt {} {INTERRUPTED}", event.attempt),
        JobEvent::Returned(event) => format!("attempt {} {RETURNED}", event.attempt),
        JobEvent::Rescheduled(event) => format!("attempt {} lost: {}; queued again", event.attempt, describe_loss(&event.cause)),
        JobEvent::CancelRequested(event) => with_reason("a user asked to cancel it", event.reason.as_deref()),
        JobEvent::Cancelled(event) => with_reason("cancelled", event.reason.as_deref()),
        JobEvent::Died(event) => format!("attempt {} lost: {}; no attempts left", event.attempt, describe_loss(&event.cause)),
        JobEvent::Released(event) if event.attempt == Attempt::FIRST => "its start conditions are met; queued".to_owned(),
        JobEvent::Released(_) => "queued again".to_owned(),
        JobEvent::Expired(event) => format!("given up: {}", describe_expiry(event.clock, event.limit_ms)),
        JobEvent::Requeued(event) => with_reason("requeued", event.reason.as_deref()),
    }
}

fn describe_spec(spec: &JobSpec) -> String {
    let mut text = typed(&spec.command, 60);
    if let Some(runtime) = &spec.runtime {
        let _ = write!(text, ", runtime {runtime}");
    }
    if let Some(image) = &spec.image {
        let _ = write!(text, ", image {image}");
    }
    let (listed, listed_bytes) = spec.tree.map_or((0, 0), |tree| (tree.files, tree.bytes));
    let bytes = spec.inputs.iter().map(|input| input.size).sum::<u64>() + listed_bytes;
    match spec.inputs.len() as u64 + listed {
        0 => {}
        1 => text.push_str(&format!(", 1 input ({})", size(bytes))),
        many => text.push_str(&format!(", {many} inputs ({})", size(bytes))),
    }
    if let Some(stdin) = &spec.stdin {
        let _ = write!(text, ", standard input ({})", size(stdin.size));
    }
    let _ = write!(text, ", queue {}", spec.queue);
    if let Some(start) = &spec.start {
        text.push_str(&describe_start(start));
    }
    text
}

fn describe_start(start: &Start) -> String {
    let mut text = ", held".to_owned();
    if let Some(ms) = start.delay_ms {
        let _ = write!(text, " for {}", duration(Duration::from_millis(ms)));
    }
    if let Some(at) = start.at {
        let _ = write!(text, " until {}", clock(at));
    }
    if !start.after.is_empty() {
        let _ = write!(text, " until {}", describe_dependencies(&start.after));
    }
    text
}

fn describe_end(finished: &Finished) -> String {
    let how = match &finished.outcome {
        Outcome::Succeeded => "succeeded".to_owned(),
        Outcome::Failed { exit_code } => format!("failed with exit code {exit_code}"),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::TimedOut { .. } | Outcome::OutOfMemory { .. } | Outcome::Signalled { .. } | Outcome::Error { .. } => {
            format!("failed: {}", describe(&finished.outcome).unwrap_or_default())
        }
    };
    let mut text = format!(
        "attempt {} {how}, after {}",
        finished.attempt,
        duration(Duration::from_millis(finished.usage.wall_ms))
    );
    if let Some(cpu) = finished.usage.cpu_ms {
        let _ = write!(text, ", CPU {}", duration(Duration::from_millis(cpu)));
    }
    if let Some(memory) = finished.usage.memory_bytes {
        let _ = write!(text, ", memory {}", size(memory));
    }
    if let Some(ms) = finished.retry_after_ms {
        let _ = write!(text, "; retry in {}", duration(Duration::from_millis(ms)));
    }
    let Some(manifest) = &finished.manifest else { return text };
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    if manifest.files > 0 {
        let _ = write!(text, "; {} ({})", counted(number(manifest.files), "output"), size(manifest.bytes));
    }
    if manifest.deleted > 0 {
        let _ = write!(text, "; removed {} of its inputs", manifest.deleted);
    }
    if manifest.notes > 0 {
        let _ = write!(text, "; {} on outputs in its log", counted(number(manifest.notes), "remark"));
    }
    text
}

fn with_reason(what: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| what.to_owned(), |reason| format!("{what}: {reason}"))
}

#[cfg(test)]
mod tests {
    use bus::{
        envelope::{Actor, Envelope},
        ids::{JobId, SessionId, WorkerId, default_token},
        job::{Claimed, Job, Recorded, Returned, Submitted},
    };

    use super::*;

    #[test]
    fn what_was_given_back_is_told_so() {
        let (worker, session, attempt): (WorkerId, _, _) = ("w".parse().expect("a token"), SessionId::new(), Attempt::FIRST);
        let by_worker = Actor::Worker(worker.clone());
        let spec = JobSpec::new(vec!["true".to_owned()]);
        let told = [
            (None, JobEvent::Submitted(Box::new(Submitted { spec }))),
            (Some(by_worker.clone()), JobEvent::Claimed(Claimed { attempt, worker, session })),
            (
                Some(by_worker),
                JobEvent::Returned(Returned {
                    attempt,
                    session,
                    interrupted: false,
                }),
            ),
        ];
        let job = JobId::new();
        let history = told.map(|(publisher, event)| Recorded {
            namespace: default_token(),
            job,
            publisher,
            sequence: 1,
            envelope: Envelope::new(Actor::Api, event),
        });
        assert_eq!(
            describe_job_event(&history[2].envelope.event),
            "attempt 1 returned without running: its worker had no room for it"
        );
        let job = JobView::from(&Job::replay(&history).expect("it was submitted"));
        let words = describe_wait(&job, Utc::now());
        assert_eq!(
            words.as_deref(),
            Some("its worker has no room for it; it is waiting for another worker")
        );
    }
}
