//! Random histories: no waiting job is forgotten.

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    /// A delay, dependencies (by how many jobs ago), the queue's and the total clock, retries.
    Submit(Option<u64>, Vec<(usize, bool)>, Option<u64>, Option<u64>, u32),
    Claim(usize),
    Finish(usize, bool),
    GiveUp(usize),
    Cancel(usize),
    Requeue(usize),
    /// The watcher reads so many events.
    Read(usize),
    /// Another one begins with what this one saved.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8_usize;
    let ms = || prop::option::of(1..5_000_u64);
    prop_oneof![
        5 => (1..3_000_u64).prop_map(Step::Pass),
        4 => (ms(), vec((1..4_usize, any::<bool>()), 0..3), ms(), ms(), 0..3_u32)
            .prop_map(|(delay, after, queue, total, retries)| Step::Submit(delay, after, queue, total, retries)),
        4 => which.clone().prop_map(Step::Claim),
        4 => (which.clone(), any::<bool>()).prop_map(|(which, well)| Step::Finish(which, well)),
        2 => which.clone().prop_map(Step::GiveUp),
        1 => which.clone().prop_map(Step::Cancel),
        1 => which.prop_map(Step::Requeue),
        3 => (0..5_usize).prop_map(Step::Read),
        1 => Just(Step::Restart),
    ]
}

fn apply(grid: &mut Grid, step: &Step) -> Result<(), TestCaseError> {
    let of = |grid: &Grid, which: usize| grid.ids.len().checked_sub(1 + which).map(|at| grid.ids[at]);
    let (a, session) = (Actor::Worker(worker("a")), grid.session);
    let attempt = |grid: &Grid, id| grid.job(id).and_then(|job| Some(job.live_attempt()?.number));
    match step {
        Step::Pass(ms) => grid.ms += ms,
        Step::Submit(delay_ms, after, queue, total, retries) => {
            let mut spec = JobSpec::new(vec!["true".to_owned()]);
            let after = after.iter().map(|(ago, well)| Dependency {
                // Some follow a job that does not exist.
                job: of(grid, ago - 1).unwrap_or_else(JobId::new),
                on: if *well { DependsOn::Succeeded } else { DependsOn::Ended },
            });
            let start = Start {
                delay_ms: *delay_ms,
                after: after.collect(),
                ..Start::default()
            };
            spec.start = (!start.is_empty()).then_some(start);
            (spec.queue_timeout_ms, spec.total_timeout_ms) = (*queue, *total);
            spec.retry = (*retries > 0).then(|| Retry {
                max: *retries,
                ..Retry::default()
            });
            let id = JobId::new();
            grid.ids.push(id);
            grid.append(id, &Actor::Api, JobCommand::Submit { spec: Box::new(spec) });
        }
        Step::Claim(which) => {
            if let Some(id) = of(grid, *which) {
                let worker = worker("a");
                let attempt = ready_attempt(grid, id);
                grid.append(id, &a, JobCommand::Claim { attempt, worker, session });
            }
        }
        Step::Finish(which, well) => {
            if let Some(id) = of(grid, *which)
                && let Some(attempt) = attempt(grid, id)
            {
                let outcome = if *well {
                    Outcome::Succeeded
                } else {
                    Outcome::Failed { exit_code: 1 }
                };
                let command = JobCommand::Finish {
                    attempt,
                    session,
                    outcome,
                    manifest: None,
                    usage: Usage::default(),
                };
                grid.append(id, &a, command);
            }
        }
        Step::GiveUp(which) => {
            if let Some(id) = of(grid, *which)
                && let Some(attempt) = attempt(grid, id)
            {
                let cause = LossCause::WorkerLost { worker: worker("a") };
                grid.append(id, &Actor::Watcher, JobCommand::GiveUp { attempt, cause });
            }
        }
        Step::Cancel(which) => {
            if let Some(id) = of(grid, *which) {
                grid.append(id, &Actor::Api, JobCommand::Cancel { reason: None });
            }
        }
        Step::Requeue(which) => {
            if let Some(id) = of(grid, *which) {
                grid.append(id, &Actor::Api, JobCommand::Requeue { reason: None });
            }
        }
        Step::Read(most) => grid.read(*most)?,
        Step::Restart => grid.watcher.state = State::restored(grid.watcher.state.saved(), grid.watcher.at(grid.ms)),
    }
    grid.carry_out()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// However far behind the watcher reads: once it has read everything, nothing is overdue.
    #[test]
    fn nothing_that_waits_is_forgotten(steps in vec(step(), 1..60)) {
        let mut grid = Grid::new();
        for step in &steps {
            apply(&mut grid, step)?;
        }
        for _ in 0..20 {
            grid.read(usize::MAX)?;
            grid.carry_out()?;
        }
        prop_assert_eq!(grid.overdue(), None);
        // A long time later, all timers are over, and only jobs without one wait.
        grid.ms += 1_000_000;
        for _ in 0..20 {
            grid.carry_out()?;
            grid.read(usize::MAX)?;
        }
        prop_assert_eq!(grid.overdue(), None);
        prop_assert!(grid.unread.is_empty());
        // Jobs that ended, or that a session holds, are forgotten.
        for _ in 0..20 {
            grid.ms += 1_000_000_000;
            grid.carry_out()?;
            grid.read(usize::MAX)?;
        }
        for (id, timer) in grid.watcher.state.timers.all() {
            let job = grid.job(*id).expect("it was submitted");
            prop_assert!(
                matches!(job.phase, Phase::Held { .. }),
                "{:?} is kept: {timer:?}", job.phase
            );
        }
    }
}
