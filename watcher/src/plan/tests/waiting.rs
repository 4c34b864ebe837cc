//! Jobs that wait for a time or for others: what is planned for them, against what their own fold says is due.

mod random;

use std::{collections::BTreeMap, time::Duration};

use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, SessionId, default_token},
    job::{Command as JobCommand, DependencyState, End, Job, JobEvent, LossCause, Outcome, Phase, Recorded, Usage, decide},
    log::read::{Fact, decode},
    spec::{
        JobSpec,
        policy::{Dependency, DependsOn, Retry, Start},
    },
    subjects,
};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::{Command, TestWatcher, registered, worker};
use crate::{observation, state::State};

/// The log of a few jobs, with a watcher that reads it and does as it plans.
struct Grid {
    watcher: TestWatcher,
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
        let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
        watcher.fold(0, &registered("a", session));
        Self {
            watcher,
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

    /// Decides on a command and appends its event, if it is not rejected; the watcher has not read it yet.
    fn append(&mut self, id: JobId, actor: &Actor, command: JobCommand) -> Option<u64> {
        let event = decide(self.job(id).as_ref(), command).ok()?;
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
        let now = self.watcher.at(self.ms);
        let most = most.min(self.unread.len());
        for (sequence, subject, payload) in self.unread.drain(..most) {
            match observation::observe(&subject, &payload) {
                Ok(Some(seen)) => self.watcher.state.fold(sequence, &seen, now),
                Ok(None) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        Ok(())
    }

    /// Carries out the commands that are planned now for waiting jobs, as [`crate::carry_out`] does, until none is left.
    fn carry_out(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..200 {
            let (now, wall) = (self.watcher.at(self.ms), self.wall());
            self.watcher.state.set_clock(now, wall);
            let planned = super::plan(&self.watcher.state, now, super::LAPSE);
            let mut waiting = planned
                .into_iter()
                .filter(|command| matches!(command, Command::CheckJob { .. } | Command::CheckDependencies { .. }))
                .peekable();
            if waiting.peek().is_none() {
                return Ok(());
            }
            for command in waiting {
                match command {
                    Command::CheckJob { job, known, met } => self.check_job(job, known, met)?,
                    Command::CheckDependencies { job, known, of } => self.check_dependencies(job, known, &of)?,
                    _ => {}
                }
            }
        }
        Err(TestCaseError::fail("the watcher does not come to an end"))
    }

    fn check_job(&mut self, id: JobId, known: u64, met: bool) -> Result<(), TestCaseError> {
        let Some(job) = self.job(id) else {
            return Err(TestCaseError::fail("an unknown job"));
        };
        prop_assert!(job.sequence >= known);
        match crate::carry_out::due(&job, met, self.wall()) {
            crate::carry_out::Due::Now(command) => self.append_due(&job, command)?,
            crate::carry_out::Due::Later(at) => self.watcher.state.timers.checked(id, job.sequence, Some(at)),
            crate::carry_out::Due::Never => self.watcher.state.timers.checked(id, job.sequence, None),
        }
        Ok(())
    }

    fn append_due(&mut self, job: &Job, command: JobCommand) -> Result<(), TestCaseError> {
        match self.append(job.id, &Actor::Watcher, command) {
            Some(sequence) => {
                // The watcher may read its own event before the append is acknowledged.
                if sequence % 2 == 0 {
                    self.read(usize::MAX)?;
                }
                self.watcher.state.timers.appended(job.id, sequence);
            }
            None => self.watcher.state.timers.checked(job.id, job.sequence, None),
        }
        Ok(())
    }

    fn check_dependencies(&mut self, id: JobId, known: u64, of: &[(JobId, u64)]) -> Result<(), TestCaseError> {
        let Some(job) = self.job(id) else {
            return Err(TestCaseError::fail("an unknown job"));
        };
        prop_assert!(job.sequence >= known && !of.is_empty());
        if job.dependencies().is_empty() {
            self.watcher.state.timers.checked(id, job.sequence, None);
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
                    return self.append_due(&job, JobCommand::Cancel { reason });
                }
            }
        }
        self.watcher.state.timers.dependencies_checked(id, &answers);
        Ok(())
    }

    /// A job whose event is due by now and is missing.
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

/// A session reports the end of another session's attempt, with or without a retry: the job's timer stays.
#[test]
fn an_invalid_end_stops_no_timer() {
    for retries in [false, true] {
        let mut grid = Grid::new();
        let mut spec = JobSpec::new(vec!["true".to_owned()]);
        spec.queue_timeout_ms = Some(1_000);
        let id = JobId::new();
        grid.ids.push(id);
        grid.append(id, &Actor::Api, JobCommand::Submit { spec: Box::new(spec) });
        grid.read(9).expect("read");
        let end = super::held_attempt("evil", SessionId::new(), id, 1);
        let now = grid.watcher.at(0);
        grid.watcher.state.fold(
            500,
            &observation::Observation::Claimed(super::held_attempt("evil", end.session, id, 7)),
            now,
        );
        let ended = if retries {
            observation::Observation::Failed(end)
        } else {
            observation::Observation::Finished(super::held_attempt("evil", end.session, id, 7), crate::Ending::Succeeded)
        };
        grid.watcher.state.fold(501, &ended, now);
        grid.sequence = 600;
        grid.ms = 1_000;
        // The test's log has no such event; what is known of it is what matters.
        let (now, wall) = (grid.watcher.at(grid.ms), grid.wall());
        grid.watcher.state.set_clock(now, wall);
        let planned = super::plan(&grid.watcher.state, now, super::LAPSE);
        assert!(
            planned
                .iter()
                .any(|command| matches!(command, Command::CheckJob { job, .. } if *job == id)),
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
    grid.append(id, &Actor::Api, JobCommand::Submit { spec: Box::new(spec) });
    grid.read(9).expect("read");
    assert_eq!(grid.watcher.state.timers.all().count(), 1);
    let (a, session, worker) = (Actor::Worker(worker("a")), grid.session, worker("a"));
    let claim = JobCommand::Claim {
        attempt: Attempt::FIRST,
        worker,
        session,
    };
    grid.append(id, &a, claim);
    let command = JobCommand::Finish {
        attempt: Attempt::FIRST,
        session,
        outcome: Outcome::Succeeded,
        manifest: None,
        usage: Usage::default(),
    };
    grid.append(id, &a, command);
    grid.read(9).expect("read");
    assert_eq!(grid.watcher.state.timers.all().count(), 0);
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
        grid.append(id, &Actor::Api, JobCommand::Submit { spec: Box::new(spec) });
    }
    grid.read(9).expect("read");
    assert_eq!(grid.watcher.state.timers.all().count(), 0);
}

/// As many as there may be: what dead workers leave is planned before all of it.
#[test]
fn the_dead_come_before_every_timer() {
    let (mut watcher, dead, dying, held) = (TestWatcher::new(), SessionId::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("dead", dead));
    watcher.fold(0, &super::claimed("dead", dead, held, 1));
    watcher.fold(0, &registered("dying", dying));
    for _ in 0..1_000 {
        let waits = observation::WaitingJob {
            job: JobId::new(),
            next: None,
            due: Some(DateTime::UNIX_EPOCH),
            after: Vec::new(),
            not_before: None,
        };
        watcher.fold(0, &observation::Observation::Waits(Box::new(waits)));
    }
    watcher.fold(1, &super::ended("dead", dead, true));
    let now = watcher.at(9_000);
    watcher.state.set_clock(now, Utc::now());
    let plan = watcher.plan(9_000);
    assert_eq!(plan.len(), 1_002);
    assert!(
        matches!(plan[0], Command::DeclareLost { session, .. } if session == dying),
        "{:?}",
        plan[0]
    );
    assert!(matches!(plan[1], Command::GiveUp { job, .. } if job == held), "{:?}", plan[1]);
}
