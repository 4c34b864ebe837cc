use bus::{
    envelope::{Actor, Envelope},
    ids::{SessionId, default_token},
    job::{CancelRequested, Cancelled, Claimed, Finished, JobEvent, LossCause, Outcome, Rescheduled, State, Submitted, Usage},
};

use super::*;

/// A story of one job, told item by item.
struct Story {
    job: JobId,
    worker: WorkerId,
    session: SessionId,
    sequence: u64,
}

impl Story {
    fn new() -> Self {
        Self {
            job: JobId::new(),
            worker: default_token(),
            session: SessionId::new(),
            sequence: 0,
        }
    }

    fn item(&mut self, publisher: Option<Actor>, event: JobEvent) -> Item {
        self.sequence += 1;
        let what = What::Job(Box::new(Recorded {
            namespace: default_token(),
            job: self.job,
            publisher: publisher.clone(),
            sequence: self.sequence,
            envelope: Envelope::new(publisher.unwrap_or(Actor::Api), event),
        }));
        let (sequence, subject) = (self.sequence, String::new());
        Item { sequence, subject, what }
    }

    fn submitted(&mut self) -> Item {
        let spec = hollow();
        self.item(None, JobEvent::Submitted(Box::new(Submitted { spec })))
    }

    fn claimed(&mut self, attempt: u32) -> Item {
        let claimed = Claimed {
            attempt: Attempt(attempt),
            worker: self.worker.clone(),
            session: self.session,
        };
        self.item(Some(Actor::Worker(self.worker.clone())), JobEvent::Claimed(claimed))
    }

    fn finished(&mut self, attempt: u32) -> Item {
        let finished = Finished {
            attempt: Attempt(attempt),
            session: self.session,
            outcome: Outcome::Succeeded,
            manifest: None,
            usage: Usage::default(),
            retry_after_ms: None,
        };
        self.item(Some(Actor::Worker(self.worker.clone())), JobEvent::Finished(Box::new(finished)))
    }

    fn rescheduled(&mut self, attempt: u32) -> Item {
        let rescheduled = Rescheduled {
            attempt: Attempt(attempt),
            cause: LossCause::WorkerLost {
                worker: self.worker.clone(),
            },
            spec: hollow(),
            failures: 0,
            deadline: None,
        };
        self.item(None, JobEvent::Rescheduled(Box::new(rescheduled)))
    }
}

fn rows(changes: &Changes) -> [usize; 4] {
    [
        changes.new_jobs.len(),
        changes.jobs.len(),
        changes.new_attempts.len(),
        changes.attempts.len(),
    ]
}

#[test]
fn a_batch_changes_each_row_once() {
    let (mut story, mut fold) = (Story::new(), Fold::new([], REMEMBERED));
    let whole = [story.submitted(), story.claimed(1), story.finished(1)];
    assert_eq!(fold.unknown(&whole, false), []);
    let changes = fold.apply(&whole, Vec::new());
    assert_eq!((rows(&changes), changes.to), ([1, 0, 1, 0], 3));
    assert_eq!(changes.new_jobs[0].state.state, State::Succeeded);
    // It ended, so it is not remembered; what is still said of it asks for the tables.
    let late = [story.finished(1)];
    assert_eq!(fold.unknown(&late, false), [story.job]);
}

#[test]
fn a_batch_goes_on_where_the_last_one_ended() {
    let (mut story, mut fold) = (Story::new(), Fold::new([], REMEMBERED));
    fold.apply(&[story.submitted(), story.claimed(1)], Vec::new());
    let next = [story.rescheduled(1), story.claimed(2)];
    assert_eq!(fold.unknown(&next, true), []);
    let changes = fold.apply(&next, Vec::new());
    assert_eq!(rows(&changes), [0, 1, 1, 1]);
    assert_eq!(
        (changes.attempts[0].number, changes.new_attempts[0].number, changes.jobs[0].attempt),
        (1, 2, 2)
    );
    let changes = fold.apply(&[story.finished(1)], Vec::new());
    assert_eq!((changes.jobs[0].state, changes.jobs[0].sequence), (State::Claimed, 5));
    let changes = fold.apply(&[story.finished(2)], Vec::new());
    assert_eq!(rows(&changes), [0, 1, 0, 1]);
}

#[test]
fn what_is_said_of_a_job_and_not_of_its_attempt_leaves_that_alone() {
    let (mut story, mut fold) = (Story::new(), Fold::new([], REMEMBERED));
    fold.apply(&[story.submitted(), story.claimed(1)], Vec::new());
    let asked = story.item(Some(Actor::Api), JobEvent::CancelRequested(CancelRequested { reason: None }));
    assert_eq!(rows(&fold.apply(&[asked], Vec::new())), [0, 1, 0, 0]);
}

#[test]
fn a_submission_is_taken_for_new_unless_one_is_careful() {
    let (mut story, fold) = (Story::new(), Fold::new([], REMEMBERED));
    let items = [story.submitted()];
    assert_eq!(fold.unknown(&items, false), []);
    assert_eq!(fold.unknown(&items, true), [story.job]);
    // One that nobody may say begins no job, so the job may be an old one.
    let Story { job, .. } = story;
    let spec = hollow();
    let items = [story.item(Some(Actor::Api), JobEvent::Submitted(Box::new(Submitted { spec })))];
    assert_eq!(fold.unknown(&items, false), [job]);
}

#[test]
fn what_precedes_a_job_makes_no_row() {
    let (mut story, mut fold) = (Story::new(), Fold::new([], REMEMBERED));
    let cancelled = story.item(Some(Actor::Api), JobEvent::Cancelled(Cancelled { reason: None }));
    let changes = fold.apply(&[cancelled], Vec::new());
    assert_eq!((rows(&changes), changes.to), ([0; 4], 1));
    assert_eq!(rows(&fold.apply(&[story.submitted()], Vec::new())), [1, 0, 0, 0]);
}
