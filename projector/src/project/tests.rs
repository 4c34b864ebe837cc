use bus::{
    envelope::{Actor, Envelope},
    ids::{SessionId, default_token},
    job::{CancelRequested, Cancelled, Claimed, Finished, JobEvent, LossCause, Outcome, Rescheduled, State, Submitted, Usage},
};

use super::*;

/// The events of one job, item by item.
struct History {
    job: JobId,
    worker: WorkerId,
    session: SessionId,
    sequence: u64,
}

impl History {
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
        let spec = empty_spec();
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
            spec: empty_spec(),
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
    let (mut history, mut fold) = (History::new(), Fold::new([], REMEMBERED));
    let whole = [history.submitted(), history.claimed(1), history.finished(1)];
    assert_eq!(fold.unknown(&whole, false), []);
    let changes = fold.apply(&whole, Vec::new());
    assert_eq!((rows(&changes), changes.to), ([1, 0, 1, 0], 3));
    assert_eq!(changes.new_jobs[0].state.state, State::Succeeded);
    // It ended, so it is not remembered; later events of it need the tables.
    let late = [history.finished(1)];
    assert_eq!(fold.unknown(&late, false), [history.job]);
}

#[test]
fn a_batch_goes_on_where_the_last_one_ended() {
    let (mut history, mut fold) = (History::new(), Fold::new([], REMEMBERED));
    fold.apply(&[history.submitted(), history.claimed(1)], Vec::new());
    let next = [history.rescheduled(1), history.claimed(2)];
    assert_eq!(fold.unknown(&next, true), []);
    let changes = fold.apply(&next, Vec::new());
    assert_eq!(rows(&changes), [0, 1, 1, 1]);
    assert_eq!(
        (changes.attempts[0].number, changes.new_attempts[0].number, changes.jobs[0].attempt),
        (1, 2, 2)
    );
    let changes = fold.apply(&[history.finished(1)], Vec::new());
    assert_eq!((changes.jobs[0].state, changes.jobs[0].sequence), (State::Claimed, 5));
    let changes = fold.apply(&[history.finished(2)], Vec::new());
    assert_eq!(rows(&changes), [0, 1, 0, 1]);
}

#[test]
fn an_event_of_a_job_and_not_of_its_attempt_leaves_the_attempt_alone() {
    let (mut history, mut fold) = (History::new(), Fold::new([], REMEMBERED));
    fold.apply(&[history.submitted(), history.claimed(1)], Vec::new());
    let asked = history.item(Some(Actor::Api), JobEvent::CancelRequested(CancelRequested { reason: None }));
    assert_eq!(rows(&fold.apply(&[asked], Vec::new())), [0, 1, 0, 0]);
}

#[test]
fn a_submission_counts_as_new_unless_the_fold_is_careful() {
    let (mut history, fold) = (History::new(), Fold::new([], REMEMBERED));
    let items = [history.submitted()];
    assert_eq!(fold.unknown(&items, false), []);
    assert_eq!(fold.unknown(&items, true), [history.job]);
    // A submission by an actor that may not submit begins no job, so the job may be an old one.
    let History { job, .. } = history;
    let spec = empty_spec();
    let items = [history.item(Some(Actor::Api), JobEvent::Submitted(Box::new(Submitted { spec })))];
    assert_eq!(fold.unknown(&items, false), [job]);
}

#[test]
fn what_precedes_a_job_makes_no_row() {
    let (mut history, mut fold) = (History::new(), Fold::new([], REMEMBERED));
    let cancelled = history.item(Some(Actor::Api), JobEvent::Cancelled(Cancelled { reason: None }));
    let changes = fold.apply(&[cancelled], Vec::new());
    assert_eq!((rows(&changes), changes.to), ([0; 4], 1));
    assert_eq!(rows(&fold.apply(&[history.submitted()], Vec::new())), [1, 0, 0, 0]);
}
