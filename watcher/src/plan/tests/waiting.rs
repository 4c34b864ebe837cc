//! Jobs that wait for a time or for others: what is planned for them, against what their own fold says is due.

mod random;

use std::{collections::BTreeMap, time::Duration};

use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, SessionId, default_token},
    job::{Command as Wish, DependencyState, End, Job, JobEvent, LossCause, Outcome, Phase, Recorded, Usage, decide},
    log::read::{Fact, decode},
    spec::{
        JobSpec,
        policy::{Dependency, DependsOn, Retry, Start},
    },
    subjects,
};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::{Command, Told, registered, worker};
use crate::{seen, state::State};

/// The log of a few jobs, with a watcher that reads it and does as it plans.
struct Grid {
    told: Told,
    jobs: BTreeMap<JobId, Vec<Recorded>>,
    ids: Vec<JobId>,
    session: SessionId,
    epoch: DateTime<Utc>,
    ms: u64,
    sequence: u64,
    /// Events that the watcher has not read yet.
    unread: Vec<(u64, String, Vec<u8>)>,
}

impl Grid {
    fn new() -> Self {
        let (mut told, session) = (Told::new(), SessionId::new());
        told.see(0, &registered("a", session));
        Self {
            told,
            jobs: BTreeMap::new(),
            ids: Vec::new(),
            session,
            epoch: DateTime::UNIX_EPOCH + TimeDelta::days(20_000),
            ms: 0,
            sequence: 100,
            unread: Vec::new(),
        }
    }

    fn wall(&self) -> DateTime<Utc> {
        self.epoch + Duration::from_millis(self.ms)
    }

    fn job(&self, id: JobId) -> Option<Job> {
        Job::replay(self.jobs.get(&id)?)
    }

    /// Stores what a wish comes to, if it comes to anything; the watcher does not know of it yet.
    fn wish(&mut self, id: JobId, actor: &Actor, wish: Wish) -> Option<u64> {
        let event = decide(self.job(id).as_ref(), wish).ok()?;
        let namespace = default_token();
        let subject = match &event {
            JobEvent::Submitted(event) if event.spec.start.is_some() => subjects::job_by(&namespace, id, actor),
            JobEvent::Submitted(_) | JobEvent::Released(_) | JobEvent::Rescheduled(_) | JobEvent::Requeued(_) => {
                subjects::job_ready(&namespace, id, &default_token(), JobSpec::new(Vec::new()).class())
            }
            _ => subjects::job_by(&namespace, id, actor),
        };
        let mut envelope = Envelope::new(actor.clone(), event);
        envelope.time = self.wall();
        let payload = envelope.to_json();
        self.sequence += 1;
        let Ok(Some(Fact::Job(recorded))) = decode(&subject, self.sequence, &payload) else {
            return None;
        };
        self.jobs.entry(id).or_default().push(*recorded);
        self.unread.push((self.sequence, subject, payload));
        Some(self.sequence)
    }

    fn read(&mut self, most: usize) -> Result<(), TestCaseError> {
        let now = self.told.at(self.ms);
        let most = most.min(self.unread.len());
        for (sequence, subject, payload) in self.unread.drain(..most) {
            match seen::read(&subject, &payload) {
                Ok(Some(seen)) => self.told.state.see(sequence, &seen, now),
                Ok(None) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        Ok(())
    }

    /// Does what is planned now for jobs that wait, as [`crate::act`] does, until nothing more is.
    fn act(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..200 {
            let (now, wall) = (self.told.at(self.ms), self.wall());
            self.told.state.tell_time(now, wall);
            let planned = super::plan(&self.told.state, now, super::LAPSE);
            let mut waiting = planned
                .into_iter()
                .filter(|command| matches!(command, Command::Look { .. } | Command::Ask { .. }))
                .peekable();
            if waiting.peek().is_none() {
                return Ok(());
            }
            for command in waiting {
                match command {
                    Command::Look { job, known, met } => self.look(job, known, met)?,
                    Command::Ask { job, known, of } => self.ask(job, known, &of)?,
                    _ => {}
                }
            }
        }
        Err(TestCaseError::fail("the watcher goes on and on"))
    }

    fn look(&mut self, id: JobId, known: u64, met: bool) -> Result<(), TestCaseError> {
        let Some(job) = self.job(id) else {
            return Err(TestCaseError::fail("a job out of nowhere"));
        };
        prop_assert!(job.sequence >= known);
        match crate::carry_out::due(&job, met, self.wall()) {
            crate::carry_out::Due::Now(wish) => self.say(&job, wish)?,
            crate::carry_out::Due::Later(at) => self.told.state.timers.looked(id, job.sequence, Some(at)),
            crate::carry_out::Due::Never => self.told.state.timers.looked(id, job.sequence, None),
        }
        Ok(())
    }

    fn say(&mut self, job: &Job, wish: Wish) -> Result<(), TestCaseError> {
        match self.wish(job.id, &Actor::Watcher, wish) {
            Some(sequence) => {
                // The log may tell it before the one who said it comes to know that it was stored.
                if sequence % 2 == 0 {
                    self.read(usize::MAX)?;
                }
                self.told.state.timers.said(job.id, sequence);
            }
            None => self.told.state.timers.looked(job.id, job.sequence, None),
        }
        Ok(())
    }

    fn ask(&mut self, id: JobId, known: u64, of: &[(JobId, u64)]) -> Result<(), TestCaseError> {
        let Some(job) = self.job(id) else {
            return Err(TestCaseError::fail("a job out of nowhere"));
        };
        prop_assert!(job.sequence >= known && !of.is_empty());
        if job.dependencies().is_empty() {
            self.told.state.timers.looked(id, job.sequence, None);
            return Ok(());
        }
        let mut answers = Vec::new();
        for dependency in job.dependencies() {
            let Some((other, known)) = of.iter().find(|(other, _)| *other == dependency.job) else {
                continue;
            };
            match dependency.state(self.job(*other).as_ref()) {
                DependencyState::Met => answers.push((*other, *known, true)),
                DependencyState::Pending => answers.push((*other, *known, false)),
                DependencyState::Never(reason) => {
                    let reason = Some(reason);
                    return self.say(&job, Wish::Cancel { reason });
                }
            }
        }
        self.told.state.timers.asked(id, &answers);
        Ok(())
    }

    /// What should have been said by now, and was not.
    fn overdue(&self) -> Option<String> {
        self.ids.iter().find_map(|id| {
            let job = self.job(*id)?;
            let due = job.due().filter(|due| due.at <= self.wall());
            let standings = job.dependencies().iter().map(|one| one.state(self.job(one.job).as_ref()));
            let standings = standings.collect::<Vec<_>>();
            let never = standings.iter().any(|one| matches!(one, DependencyState::Never(_)));
            let started = matches!(job.phase, Phase::Held { until } if until.is_none_or(|until| until <= self.wall()))
                && !standings.is_empty()
                && standings.iter().all(|one| *one == DependencyState::Met);
            (due.is_some() || never || started).then(|| format!("{:?}: {due:?} {standings:?}", job.phase))
        })
    }
}

/// Somebody says that another's attempt ended, with or without a retry: the job's clock goes on.
#[test]
fn a_wrong_word_stops_no_clock() {
    for retries in [false, true] {
        let mut grid = Grid::new();
        let mut spec = JobSpec::new(vec!["true".to_owned()]);
        spec.queue_timeout_ms = Some(1_000);
        let id = JobId::new();
        grid.ids.push(id);
        grid.wish(id, &Actor::Api, Wish::Submit { spec: Box::new(spec) });
        grid.read(9).expect("read");
        let end = super::a_try("evil", SessionId::new(), id, 1);
        let now = grid.told.at(0);
        grid.told
            .state
            .see(500, &seen::Seen::Claimed(super::a_try("evil", end.session, id, 7)), now);
        let word = if retries {
            seen::Seen::Failed(end)
        } else {
            seen::Seen::Finished(super::a_try("evil", end.session, id, 7), crate::Ending::Well)
        };
        grid.told.state.see(501, &word, now);
        grid.sequence = 600;
        grid.ms = 1_000;
        // The test's log has no such event; what is known of it is what matters.
        let (now, wall) = (grid.told.at(grid.ms), grid.wall());
        grid.told.state.tell_time(now, wall);
        let planned = super::plan(&grid.told.state, now, super::LAPSE);
        assert!(
            planned
                .iter()
                .any(|command| matches!(command, Command::Look { job, .. } if *job == id)),
            "{planned:?}"
        );
    }
}

/// The attempt that waits for a worker; the first where none does.
fn ready_attempt(grid: &Grid, id: JobId) -> Attempt {
    let job = grid.job(id);
    job.and_then(|job| job.ready_attempt()).unwrap_or(Attempt::FIRST)
}

/// One that ended as its worker says is not kept in mind until its clock would pass.
#[test]
fn what_ended_is_forgotten_at_once() {
    let mut grid = Grid::new();
    let mut spec = JobSpec::new(vec!["true".to_owned()]);
    spec.total_timeout_ms = Some(1_000_000_000);
    let id = JobId::new();
    grid.ids.push(id);
    grid.wish(id, &Actor::Api, Wish::Submit { spec: Box::new(spec) });
    grid.read(9).expect("read");
    assert_eq!(grid.told.state.timers.all().count(), 1);
    let (a, session, worker) = (Actor::Worker(worker("a")), grid.session, worker("a"));
    let claim = Wish::Claim {
        attempt: Attempt::FIRST,
        worker,
        session,
    };
    grid.wish(id, &a, claim);
    let wish = Wish::Finish {
        attempt: Attempt::FIRST,
        session,
        outcome: Outcome::Succeeded,
        manifest: None,
        usage: Usage::default(),
    };
    grid.wish(id, &a, wish);
    grid.read(9).expect("read");
    assert_eq!(grid.told.state.timers.all().count(), 0);
    assert!(matches!(grid.job(id).expect("there").phase, Phase::Ended(End::Finished(_))));
}

/// A time that is too far away to be written down is never kept, and so is no obstacle to a snapshot.
#[test]
fn what_is_due_after_the_end_of_days_is_not_due() {
    let mut grid = Grid::new();
    for delay_ms in [u64::MAX, 1 << 50] {
        let mut spec = JobSpec::new(vec!["true".to_owned()]);
        spec.start = Some(Start {
            delay_ms: Some(delay_ms),
            ..Start::default()
        });
        let id = JobId::new();
        grid.wish(id, &Actor::Api, Wish::Submit { spec: Box::new(spec) });
    }
    grid.read(9).expect("read");
    assert_eq!(grid.told.state.timers.all().count(), 0);
}

/// As many as there may be: what dead workers leave is planned before all of it.
#[test]
fn the_dead_come_before_every_timer() {
    let (mut told, dead, dying, held) = (Told::new(), SessionId::new(), SessionId::new(), JobId::new());
    told.see(0, &registered("dead", dead));
    told.see(0, &super::claimed("dead", dead, held, 1));
    told.see(0, &registered("dying", dying));
    for _ in 0..1_000 {
        let waits = seen::Waits {
            job: JobId::new(),
            next: None,
            due: Some(DateTime::UNIX_EPOCH),
            after: Vec::new(),
            not_before: None,
        };
        told.see(0, &seen::Seen::Waits(Box::new(waits)));
    }
    told.see(1, &super::ended("dead", dead, true));
    let now = told.at(9_000);
    told.state.tell_time(now, Utc::now());
    let plan = told.plan(9_000);
    assert_eq!(plan.len(), 1_002);
    assert!(
        matches!(plan[0], Command::Lose { session, .. } if session == dying),
        "{:?}",
        plan[0]
    );
    assert!(matches!(plan[1], Command::GiveUp { job, .. } if job == held), "{:?}", plan[1]);
}
