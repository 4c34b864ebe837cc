//! The cases: what the grid is judged by, each to be run by its name.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bus::log::usage;
use chrono::{TimeDelta, Utc};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio_util::sync::CancellationToken;

use super::{
    check::Kind,
    fault::{Crew, Harm, Part, Planned, schedule},
    hostile::{self, Pressure},
    ledger::{Ledger, Stand},
    load::Recipe,
    measure,
    outcome::Outcome,
    stage::Stage,
    trace,
};

/// How hard it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What everything random comes from.
    pub seed: u64,
    /// How long the random faults go on.
    pub minutes: f64,
    /// How many jobs there are to be among them, at least.
    pub jobs: usize,
    /// How many at once.
    pub level: usize,
    /// How many times each repeated case does its fault, in percent of what it is judged by.
    pub percent: usize,
}

impl Settings {
    fn times(&self, judged: usize) -> usize {
        (judged * self.percent).div_ceil(100)
    }
}

/// The names of all cases, and what they do.
pub const CASES: [(&str, &str); 9] = [
    (
        "sigkill",
        "20 SIGKILLs of a runner under load, each of its jobs runs elsewhere within 1 s",
    ),
    ("cut", "10 cut cables, each job runs elsewhere within 5 s"),
    (
        "zombie",
        "10 runners stopped with SIGSTOP until their jobs run elsewhere, and let go on: each is fenced",
    ),
    (
        "frozen-nats",
        "nats-server frozen for 10 s, five times: no healthy worker is given up",
    ),
    (
        "submissions",
        "SIGKILLs of nats-server during 2,000 submissions: each acknowledged one is there",
    ),
    (
        "postgres-stopped",
        "Postgres stopped for a minute: jobs are submitted over NATS, run and end",
    ),
    (
        "hostile",
        "poisoned messages, jobs that mean harm, 20,000 timers at one moment, and busy loops on every CPU: \
         no healthy worker is given up, and a killed runner's jobs run elsewhere within 5 s",
    ),
    (
        "full-log",
        "the log full to its last byte while jobs run and a runner dies, three times: what ends meanwhile is said once there is room, and \
         nothing runs twice",
    ),
    ("random", "minutes of random faults of every part, with 100 jobs and more at once"),
];

/// Runs a case.
pub async fn run(name: &str, settings: Settings) -> Result<Outcome> {
    match name {
        "sigkill" => bereave("sigkill", Harm::Kill, settings.times(20), 1_000, settings).await,
        "cut" => bereave("cut", Harm::Cut, settings.times(10), 5_000, settings).await,
        "zombie" => zombie(settings).await,
        "frozen-nats" => frozen_nats(settings).await,
        "submissions" => submissions(settings).await,
        "postgres-stopped" => postgres_stopped(settings).await,
        "hostile" => hostile(settings).await,
        "full-log" => full_log(settings).await,
        "random" => random(settings).await,
        _ => anyhow::bail!("there is no case `{name}`"),
    }
}

/// A watcher that has just begun to hear the broker's advisories does not act on them for so long: it may have missed some.
const SETTLED: Duration = Duration::from_secs(5);
const TRIO: Crew = Crew { runners: 3, watchers: 2 };

fn steady(level: usize, length_ms: (u64, u64)) -> Recipe {
    Recipe {
        length_ms,
        level,
        least: 0,
        various: true,
    }
}

/// A runner is harmed so that it is given up, again and again; the others have room.
async fn bereave(name: &'static str, harm: Harm, times: usize, bound_ms: i64, settings: Settings) -> Result<Outcome> {
    let mut stage = Stage::begin(name, settings.seed, TRIO).await?;
    let mut random = StdRng::seed_from_u64(settings.seed);
    let going = stage.keep_up(steady(24, (2_000, 9_000)));
    tokio::time::sleep(SETTLED).await;
    for _ in 0..times {
        let number = random.random_range(1..=TRIO.runners);
        stage.busy(number, 3).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000))).await;
        stage.bereave(harm, number).await?;
    }
    going.stop().await?;
    stage.finish(|outcome| in_time(outcome, bound_ms)).await
}

/// Every job of a harmed worker ran elsewhere in time.
fn in_time(outcome: &mut Outcome, bound_ms: i64) {
    let rows = measure::rows(&outcome.evidence, &outcome.verdict);
    for late in rows.iter().flat_map(|row| &row.restart_ms).filter(|ms| **ms > bound_ms) {
        let what = format!("a job ran elsewhere after {late} ms, and {bound_ms} were promised");
        outcome.verdict.add(3, Kind::Late, None, what);
    }
    if rows.iter().all(|row| row.restart_ms.is_empty()) {
        outcome
            .verdict
            .add(3, Kind::Late, None, "no job had to run elsewhere; nothing was measured".to_owned());
    }
}

/// Runners that sleep through their own end, wake up, and speak.
async fn zombie(settings: Settings) -> Result<Outcome> {
    let mut stage = Stage::begin("zombie", settings.seed, TRIO).await?;
    let mut random = StdRng::seed_from_u64(settings.seed);
    // Half of them end while their runner sleeps: it wakes up with a result in its hands.
    let going = stage.keep_up(steady(24, (1_500, 8_000)));
    let mut lingering = Vec::new();
    for _ in 0..settings.times(10) {
        let number = random.random_range(1..=TRIO.runners);
        stage.busy(number, 3).await?;
        let had = stage.bereave(Harm::Freeze, number).await?;
        lingering.extend(gone(&stage.rig.traces(), &had).await?);
    }
    going.stop().await?;
    let fenced = |outcome: &mut Outcome| {
        for what in lingering {
            outcome.verdict.add(2, Kind::Overlap, None, what);
        }
        in_time(outcome, 5_000);
    };
    stage.finish(fenced).await
}

/// Waits until the processes of attempts are gone; those that stay, in words.
async fn gone(traces: &Path, attempts: &[(bus::ids::JobId, bus::ids::Attempt)]) -> Result<Vec<String>> {
    let traces = trace::read(traces)?;
    let of_them = traces.iter().filter(|trace| attempts.contains(&(trace.job, trace.attempt)));
    let mut pids: Vec<u32> = of_them.map(|trace| trace.pid).collect();
    let begun = Instant::now();
    while !pids.is_empty() && begun.elapsed() < Duration::from_secs(5) {
        pids.retain(|pid| is_ticker(*pid));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(pids
        .iter()
        .map(|pid| format!("process {pid} of a fenced attempt is still there"))
        .collect())
}

fn is_ticker(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "ticker")
}

async fn frozen_nats(settings: Settings) -> Result<Outcome> {
    let mut stage = Stage::begin("frozen-nats", settings.seed, TRIO).await?;
    let going = stage.keep_up(steady(30, (1_000, 15_000)));
    for _ in 0..settings.times(5) {
        stage.progress(10).await?;
        if let Some(fault) = stage.harm(Harm::Freeze, Part::Nats).await? {
            tokio::time::sleep(Duration::from_secs(10)).await;
            stage.mend(fault).await?;
        }
        // Longer than a lapse: whoever is given up for the silence is given up by then.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    going.stop().await?;
    stage.finish(|_| ()).await
}

async fn submissions(settings: Settings) -> Result<Outcome> {
    let mut stage = Stage::begin("submissions", settings.seed, TRIO).await?;
    let recipe = Recipe {
        various: false,
        ..steady(0, (10, 40))
    };
    let all = settings.times(2_000);
    let (load, half) = (stage.load.clone(), all / 20);
    let by = |over_nats: bool| {
        let (load, recipe) = (load.clone(), recipe.clone());
        async move {
            for _ in 0..half {
                load.submit(10, &recipe, over_nats).await?;
            }
            anyhow::Ok(())
        }
    };
    let harming = async {
        for part in [1, 3, 5] {
            let enough = all * part / 8;
            let begun = Instant::now();
            while load.acknowledged().len() < enough {
                ensure!(
                    begun.elapsed() < Duration::from_secs(60),
                    "{enough} submissions took longer than a minute"
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if let Some(fault) = stage.harm(Harm::Kill, Part::Nats).await? {
                tokio::time::sleep(Duration::from_millis(300)).await;
                stage.mend(fault).await?;
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(by(false), by(true), harming)?;
    stage.finish(|_| ()).await
}

async fn postgres_stopped(settings: Settings) -> Result<Outcome> {
    let mut stage = Stage::begin("postgres-stopped", settings.seed, TRIO).await?;
    let recipe = steady(20, (300, 3_000));
    stage.load.submit(10, &recipe, false).await?;
    stage.progress(5).await?;
    let stopped = stage.harm(Harm::Restart, Part::Postgres).await?;
    let begun = Instant::now();
    let outage = Duration::from_secs(60) * u32::try_from(settings.percent.min(100))? / 100;
    let mut rounds = 0;
    while begun.elapsed() < outage {
        let jobs = stage.load.submit(10, &recipe, true).await?;
        let all = |ledger: &Ledger| {
            let ended = |job| {
                ledger
                    .jobs
                    .get(job)
                    .is_some_and(|tale: &super::ledger::Tale| tale.ended().is_some())
            };
            jobs.iter().all(ended).then_some(())
        };
        stage
            .observer
            .until("jobs end while Postgres is away", Duration::from_secs(30), all)
            .await?;
        rounds += 1;
    }
    ensure!(rounds > 2, "only {rounds} rounds of jobs ended while Postgres was away");
    if let Some(fault) = stopped {
        stage.mend(fault).await?;
    }
    stage.finish(|_| ()).await
}

/// Everything that hostile users do, at once; and while the timers fire, a runner dies.
async fn hostile(settings: Settings) -> Result<Outcome> {
    let mut stage = Stage::begin("hostile", settings.seed, TRIO).await?;
    let going = stage.keep_up(steady(24, (2_000, 9_000)));
    let pressure = Pressure::start(2)?;
    let mut poisoned = 0;
    for _ in 0..settings.times(3) {
        poisoned += hostile::poison(&stage.rig, TRIO.runners).await?;
        stage.load.submit_scripts(&hostile::SCRIPTS).await?;
        stage.progress(10).await?;
    }
    let timers = settings.times(20_000);
    hostile::timers(&stage.rig, timers, Utc::now() + TimeDelta::seconds(60)).await?;
    stage.busy(1, 3).await?;
    let fired = |ledger: &Ledger| {
        let queued = ledger.jobs.values().filter(|tale| matches!(tale.stand, Stand::Queued(_))).count();
        (queued > timers / 20).then_some(queued)
    };
    let fired = stage.observer.until("the timers fire", Duration::from_secs(120), fired).await?;
    ensure!(fired < timers, "all of them fired before a runner could be killed");
    stage.bereave(Harm::Kill, 1).await?;
    stage.progress(10).await?;
    drop(pressure);
    // Their ends would count as those of the load.
    going.stop().await?;
    hostile::cancel_timers(&stage.rig).await?;
    stage
        .finish(|outcome| {
            hostile::forgive_poison(&mut outcome.verdict, poisoned);
            in_time(outcome, 5_000);
        })
        .await
}

/// The log has no room for anything while attempts end, and a runner dies.
async fn full_log(settings: Settings) -> Result<Outcome> {
    let mut stage = Stage::begin("full-log", settings.seed, TRIO).await?;
    let recipe = steady(0, (500, 4_000));
    let bus = stage.rig.bus("chaos-bound").await?;
    let fill = async || usage::set_bound(&bus.js, usage::usage(&bus.js).await?.fill.used).await;
    for round in 0..settings.times(3) {
        stage.load.submit(60, &recipe, false).await?;
        let number = u8::try_from(round)? % TRIO.runners + 1;
        stage.busy(number, 3).await?;
        fill().await?;
        let killed = stage.harm(Harm::Kill, Part::Runner(number)).await?;
        // What ended since cannot be said.
        let survivor = Part::Runner(number % TRIO.runners + 1);
        let waits = || stage.rig.log(survivor).matches("waits for room").count();
        let before = waits();
        stage
            .rig
            .until("an end waits for room", async || (waits() > before).then_some(()))
            .await?;
        usage::set_bound(&bus.js, 2 * usage::LEAST_BOUND).await?;
        if let Some(killed) = killed {
            stage.mend(killed).await?;
        }
        let all = stage.load.count();
        let ended = move |ledger: &Ledger| (ledger.ended() >= all).then_some(());
        stage.observer.until("all jobs end", Duration::from_secs(60), ended).await?;
    }
    stage.finish(|_| ()).await
}

async fn random(settings: Settings) -> Result<Outcome> {
    let crew = Crew { runners: 4, watchers: 2 };
    let length = Duration::from_secs_f64(settings.minutes * 60.0);
    let recipe = Recipe {
        least: settings.jobs,
        ..steady(settings.level, (2_000, 30_000))
    };
    under("random", settings.seed, crew, recipe, &schedule(settings.seed, crew, length)).await
}

/// A load, and a schedule of faults.
async fn under(name: &'static str, seed: u64, crew: Crew, recipe: Recipe, schedule: &[Planned]) -> Result<Outcome> {
    let mut stage = Stage::begin(name, seed, crew).await?;
    let going = stage.keep_up(recipe);
    stage.harms.carry_out(&mut stage.rig, schedule, &CancellationToken::new()).await?;
    going.stop().await?;
    stage.finish(|_| ()).await
}

/// The short form: every part is harmed once, in half a minute.
pub async fn short(seed: u64) -> Result<Outcome> {
    let fault = |at: f32, harm, part, lasts: f32| Planned {
        harm,
        part,
        at: Duration::from_secs_f32(at),
        lasts: Duration::from_secs_f32(lasts),
    };
    let schedule = [
        fault(1.5, Harm::Kill, Part::Runner(1), 1.5),
        fault(4.0, Harm::Freeze, Part::Runner(2), 6.0),
        fault(5.0, Harm::Kill, Part::Watcher(1), 2.0),
        fault(8.0, Harm::Kill, Part::Api, 1.0),
        fault(11.0, Harm::Cut, Part::Runner(1), 6.0),
        fault(13.0, Harm::Restart, Part::Projector, 1.0),
        fault(15.0, Harm::Kill, Part::Postgres, 2.0),
        fault(18.0, Harm::Freeze, Part::Nats, 3.0),
        fault(22.5, Harm::Kill, Part::Nats, 0.5),
        fault(25.0, Harm::Restart, Part::Runner(2), 0.5),
    ];
    let recipe = steady(12, (300, 4_000));
    under("short", seed, Crew { runners: 2, watchers: 2 }, recipe, &schedule).await
}
