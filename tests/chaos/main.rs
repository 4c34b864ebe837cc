//! `chaos [CASE…]`: harms a grid of its own, and checks what it promised. `make chaos` runs every case.

use std::{env, path::PathBuf, process::ExitCode, str::FromStr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use grid_tests::chaos::{
    cases::{CASES, Settings, run},
    outcome,
};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "chaos [CASE…]: harms a grid of its own with real faults, and checks what it promised.

Set in the environment:
  CHAOS_SEED      what everything random comes from; the same seed is the same schedule  [the time]
  CHAOS_MINUTES   how long the random faults go on                                       [10]
  CHAOS_JOBS      how many jobs there are among them, at least                           [500]
  CHAOS_LEVEL     how many of them at once                                               [120]
  CHAOS_PERCENT   how much of the other cases is done: 10 makes 2 SIGKILLs of 20         [100]
  CHAOS_NET       off: no network namespaces; runners are stopped instead of cut off     [on]
  CHAOS_REPORT    where the report goes, as JSON                                         [target/chaos.json]
  CHAOS_KEEP      set: the logs, traces and stores of a good run are kept too
  CHAOS_LOG       what the parts log (info, debug)                                       [info]
Cases:";

fn setting<T: FromStr>(name: &str, default: T) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}: `{text}` will not do")),
        Err(_) => Ok(default),
    }
}

fn settings() -> Result<Settings> {
    let by_time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let settings = Settings {
        seed: setting("CHAOS_SEED", by_time)?,
        minutes: setting("CHAOS_MINUTES", 10.0)?,
        jobs: setting("CHAOS_JOBS", 500)?,
        level: setting("CHAOS_LEVEL", 120)?,
        percent: setting("CHAOS_PERCENT", 100)?,
    };
    ensure!((0.1..=600.0).contains(&settings.minutes), "CHAOS_MINUTES: from 0.1 to 600");
    ensure!(
        (1..=150).contains(&settings.level),
        "CHAOS_LEVEL: from 1 to 150; four workers take 160 jobs"
    );
    ensure!((1..=1000).contains(&settings.percent), "CHAOS_PERCENT: from 1 to 1000");
    Ok(settings)
}

fn main() -> Result<ExitCode> {
    let names: Vec<String> = env::args().skip(1).collect();
    if names.iter().any(|name| name.starts_with('-')) {
        println!("{HELP}");
        for (name, what) in CASES {
            println!("  {name:<18}{what}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let all = || CASES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = if names.is_empty() { all() } else { names };
    for name in &names {
        ensure!(
            CASES.iter().any(|(known, _)| known == name),
            "there is no case `{name}`; see chaos --help"
        );
    }
    // Every process of the grid is started by this thread, and dies with it.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(all_of(&names, settings()?))
}

async fn all_of(names: &[String], settings: Settings) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let report = PathBuf::from(env::var("CHAOS_REPORT").unwrap_or_else(|_| "target/chaos.json".to_owned()));
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        eprintln!("chaos: {name}, seed {}", settings.seed);
        let begun = Instant::now();
        let done = tokio::select! {
            done = Box::pin(run(name, settings)) => done,
            // What runs goes down with its handles.
            _ = interrupt.recv() => return Ok(ExitCode::from(130)),
            _ = terminate.recv() => return Ok(ExitCode::from(143)),
        };
        match done {
            Ok(outcome) => {
                print!("{}", outcome.text());
                println!("   in {:.0} s", begun.elapsed().as_secs_f32());
                if let Err(broken) = outcome.assert() {
                    println!("{broken:#}");
                    failed.push(name.as_str());
                }
                outcomes.push(outcome);
                outcome::write(&report, &outcomes).with_context(|| format!("cannot write {}", report.display()))?;
            }
            Err(error) => {
                println!("== {name}: {error:#}");
                failed.push(name.as_str());
            }
        }
    }
    println!("the report is in {}", report.display());
    if failed.is_empty() {
        println!("every promise held");
        return Ok(ExitCode::SUCCESS);
    }
    println!("FAILED: {} (CHAOS_SEED={})", failed.join(", "), settings.seed);
    Ok(ExitCode::FAILURE)
}
