//! A grid under load that is to be harmed: what every case begins and ends with.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use bus::ids::{Attempt, JobId};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Micros,
    fault::{Crew, Fault, Harm, Part},
    inject::Harms,
    ledger::Ledger,
    load::{Load, Recipe},
    now,
    observer::Observer,
    outcome::Outcome,
    rig::Rig,
};

/// How long anything may take that the grid does while nothing else harms it.
const PATIENCE: Duration = Duration::from_secs(40);

/// The grid, its load, and who watches.
#[derive(Debug)]
pub struct Stage {
    /// The grid.
    pub rig: Rig,
    /// Who hands jobs in.
    pub load: Load,
    /// Who follows the log.
    pub observer: Arc<Observer>,
    /// What was done.
    pub harms: Harms,
    name: &'static str,
    seed: u64,
}

/// A load that goes on by itself.
#[derive(Debug)]
pub struct Going {
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Going {
    /// Hands nothing in any more.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await?
    }
}

impl Stage {
    /// Starts a grid.
    pub async fn begin(name: &'static str, seed: u64, crew: Crew) -> Result<Self> {
        let rig = Rig::start(crew).await?;
        let bus = rig.bus("chaos-load").await?;
        let load = Load::new(Some(rig.door()), bus, &rig.traces(), seed);
        let observer = Arc::new(Observer::follow(&rig.bus("chaos-observer").await?));
        Ok(Self {
            rig,
            load,
            observer,
            harms: Harms::default(),
            name,
            seed,
        })
    }

    /// Keeps jobs under way until told otherwise.
    #[must_use]
    pub fn keep_up(&self, recipe: Recipe) -> Going {
        let (load, observer, stop) = (self.load.clone(), Arc::clone(&self.observer), CancellationToken::new());
        let until = stop.clone();
        let task = TaskTracker::new().spawn(async move { load.keep_up(&recipe, &observer, until).await });
        Going { stop, task }
    }

    /// Waits until a worker runs so many jobs.
    pub async fn busy(&self, number: u8, jobs: usize) -> Result<()> {
        let worker = format!("worker-{number}");
        let running = move |ledger: &Ledger| {
            let held = ledger.held(&worker, now());
            let running = held.iter().filter(|(_, _, one)| one.started.is_some());
            (running.count() >= jobs).then_some(())
        };
        self.observer
            .until(&format!("worker-{number} runs {jobs} jobs"), PATIENCE, running)
            .await
    }

    /// Harms a part.
    pub async fn harm(&mut self, harm: Harm, part: Part) -> Result<Option<Fault>> {
        self.harms.harm(&mut self.rig, harm, part).await
    }

    /// Mends it.
    pub async fn mend(&mut self, fault: Fault) -> Result<()> {
        self.harms.mend(&mut self.rig, fault).await
    }

    /// Harms a runner, waits until everything that it had runs elsewhere, and mends it; then until it serves again.
    /// Returns the attempts that it had.
    pub async fn bereave(&mut self, harm: Harm, number: u8) -> Result<Vec<(JobId, Attempt)>> {
        let part = Part::Runner(number);
        let worker = format!("worker-{number}");
        let Some(fault) = self.harm(harm, part).await? else {
            return Ok(Vec::new());
        };
        let from = fault.from;
        // A word of its last moment may still be under way.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let moved = |ledger: &Ledger| {
            let held = ledger.held(&worker, from);
            let moved = |job: &JobId, attempt: Attempt| {
                let tale = ledger.jobs.get(job);
                let next = tale.and_then(|tale| tale.tries.iter().find(|one| one.number == attempt.next()));
                next.is_some_and(|next| next.started.is_some()) || tale.is_some_and(|tale| tale.ended().is_some())
            };
            held.iter().all(|(job, _, one)| moved(job, one.number)).then_some(())
        };
        self.observer
            .until(&format!("the jobs of {worker} run elsewhere"), PATIENCE, moved)
            .await?;
        let had = self
            .observer
            .look(|ledger| ledger.held(&worker, from).iter().map(|(job, _, one)| (*job, one.number)).collect());
        self.mend(fault).await?;
        self.serves_again(&worker, from).await?;
        Ok(had)
    }

    /// Waits until a worker has begun a session since.
    async fn serves_again(&self, worker: &str, since: Micros) -> Result<()> {
        let again = |ledger: &Ledger| {
            let begun = |(at, who, _): &&(Micros, _, _)| -> bool { *at > since && named(who, worker) };
            ledger.sessions.iter().any(|session| begun(&session)).then_some(())
        };
        self.observer.until(&format!("{worker} begins a session"), PATIENCE, again).await
    }

    /// Waits until so many jobs more have ended.
    pub async fn progress(&self, jobs: usize) -> Result<()> {
        let before = self.observer.look(Ledger::ended);
        let further = move |ledger: &Ledger| (ledger.ended() >= before + jobs).then_some(());
        self.observer.until(&format!("{jobs} jobs more end"), PATIENCE, further).await
    }

    /// Waits for the end of every job, and checks; by rules of the case's own too.
    pub async fn finish(mut self, more: impl FnOnce(&mut Outcome)) -> Result<Outcome> {
        let fallen = self.rig.fallen();
        ensure!(fallen.is_empty(), "{fallen:?}");
        let mut outcome = Outcome::gather(self.name, self.seed, &mut self.rig, &self.load, &self.observer, self.harms).await?;
        more(&mut outcome);
        if !outcome.verdict.violations.is_empty() || std::env::var_os("CHAOS_KEEP").is_some() {
            eprintln!("chaos: kept {}", self.rig.keep().display());
        }
        Ok(outcome)
    }
}

fn named(worker: &bus::ids::WorkerId, name: &str) -> bool {
    worker.as_str() == name
}
