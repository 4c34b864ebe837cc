//! `rgrid up`: the steps before there is anything to supervise.

use std::{env, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use chrono::Utc;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    UpArgs, detach,
    dir::{DataDir, Lock},
    grid_file::{GridFile, Wishes},
    launch::{Launcher, WorkerOptions},
    leftovers, postgres,
    process::Identity,
    programs,
    record::{Phase, UpRecord, replace},
    report::{Audience, Message, Report},
    run,
};

/// How long a second `rgrid up` waits for the first to come up.
const FIRST_PATIENCE: Duration = Duration::from_secs(130);

/// Brings a grid up. In the foreground it returns when the grid is down again; detached, when it is up.
///
/// # Errors
/// If it does not come up; nothing of it runs then.
pub(crate) async fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::new(args.data_dir.as_deref())?;
    if args.supervisor {
        return in_background(&args, &dir).await;
    }
    dir.prepare()?;
    let Some(lock) = dir.lock()? else { return already_up(&dir).await };
    if args.detach {
        drop(lock);
        return match detach::start(&dir).await? {
            detach::Outcome::Up => show(&dir, "The grid is up"),
            detach::Outcome::AlreadyUp => already_up(&dir).await,
        };
    }
    let report = Report::new(Audience::Terminal, detach::open_log(&dir)?);
    let (_, result) = supervise(&args, &dir, lock, report).await;
    result.map(|()| ExitCode::SUCCESS)
}

/// The life of the process in the background.
async fn in_background(args: &UpArgs, dir: &DataDir) -> anyhow::Result<ExitCode> {
    detach::leave_session()?;
    let mut report = Report::new(Audience::Starter, detach::open_log(dir)?);
    let Some(lock) = dir.lock()? else {
        report.conclude(&Message::AlreadyUp);
        return Ok(ExitCode::SUCCESS);
    };
    let (mut report, result) = supervise(args, dir, lock, report).await;
    let Err(error) = result else { return Ok(ExitCode::SUCCESS) };
    let reason = format!("{error:#}");
    report.say_to_log(&format!("error: {reason}"));
    report.conclude(&Message::Failed(reason));
    Ok(ExitCode::FAILURE)
}

/// Brings the grid up and keeps it so, until it is told to end. The lock is held until nothing of it runs.
async fn supervise(args: &UpArgs, dir: &DataDir, lock: Lock, mut report: Report) -> (Report, anyhow::Result<()>) {
    let prepared = match record(dir) {
        Ok(up) => launcher(args, dir, &mut report).await.map(|launcher| (launcher, up)),
        Err(error) => Err(error),
    };
    let (report, result) = match prepared {
        Ok((launcher, up)) => Box::pin(run::run(launcher, report, up)).await,
        Err(error) => (report, Err(error)),
    };
    drop(lock);
    (report, result)
}

/// Writes down that this process is the supervisor.
fn record(dir: &DataDir) -> anyhow::Result<UpRecord> {
    let process = Identity::of(std::process::id()).context("cannot read /proc; rgrid needs it mounted")?;
    let up = UpRecord {
        process,
        since: Utc::now(),
        phase: Phase::Starting,
        killed: Vec::new(),
    };
    dir.write_up(&up)?;
    Ok(up)
}

/// Makes the key for secrets, once: another would open none that are there.
fn secrets_key(dir: &DataDir) -> anyhow::Result<()> {
    let path = dir.secrets_key();
    if !path.exists() {
        let text = bus::grid::secrets::Key::generate().to_text();
        replace(&path, text.as_bytes(), true).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Makes the file that the grid's runtimes are written in, once; and reads it, so that what is wrong there is said here.
fn runtimes(dir: &DataDir) -> anyhow::Result<()> {
    let path = dir.runtimes();
    if !path.exists() {
        replace(&path, api::runtimes::TEMPLATE.as_bytes(), false).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    api::runtimes::read(&path, &text)?;
    Ok(())
}

/// Finds the programs, stops what an earlier supervisor left, and settles addresses and credentials.
async fn launcher(args: &UpArgs, dir: &DataDir, report: &mut Report) -> anyhow::Result<Launcher> {
    postgres::prepare(dir)?;
    let leftovers = leftovers::stop(dir).await;
    if !leftovers.is_empty() {
        report.say(&format!(
            "the last supervisor was killed; stopped its remaining processes: {}",
            leftovers::names(&leftovers)
        ));
    }
    let (nats, postgres) = tokio::try_join!(programs::nats_server(), programs::postgres(postgres::cluster_major(dir)))?;
    let wishes = Wishes {
        nats_port: args.nats_port,
        postgres_port: args.postgres_port,
        api_port: args.api_port,
        store: args.store.clone(),
    };
    let (grid, ports) = GridFile::settle(dir, &wishes)?;
    secrets_key(dir)?;
    runtimes(dir)?;
    let first = if postgres::cluster_major(dir).is_none() {
        " (a new grid: creating its database)"
    } else {
        ""
    };
    report.say(&format!(
        "starting nats-server {} and PostgreSQL {}, then the services{first}",
        nats.version, postgres.major
    ));
    let worker = WorkerOptions {
        queues: args.queues.clone(),
        executor: args.executor.clone(),
        cpus: args.cpus,
        memory: args.memory,
    };
    let program = env::current_exe().context("cannot find this program's own file")?;
    Ok(Launcher {
        dir: dir.clone(),
        grid,
        nats,
        postgres,
        program,
        worker,
        ports: Mutex::new(Some(ports)),
    })
}

/// Says that a grid is up that somebody else brought up, when it is.
async fn already_up(dir: &DataDir) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + FIRST_PATIENCE;
    loop {
        let up = dir.read_up().ok().filter(|up| up.process.is_alive());
        match up.map(|up| (up.phase, up.process.pid)) {
            Some((Phase::Up, pid)) => return show(dir, &format!("The grid is already up (pid {pid})")),
            Some((Phase::Stopping | Phase::Ended, pid)) => {
                bail!(
                    "the grid in {} is going down (pid {pid}); try again when `rgrid status` says it is not running",
                    dir.root().display()
                );
            }
            Some((Phase::Starting, _)) | None => {}
        }
        if dir.lock()?.is_some() {
            bail!(
                "another `rgrid up` was starting the grid in {} and gave up; see {}",
                dir.root().display(),
                dir.up_log().display()
            );
        }
        if Instant::now() >= until {
            bail!(
                "another `rgrid up` is starting the grid in {} and does not finish; see {}",
                dir.root().display(),
                dir.up_log().display()
            );
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn show(dir: &DataDir, what: &str) -> anyhow::Result<ExitCode> {
    let grid = GridFile::load(dir.root())?;
    let flag = dir.as_flag();
    println!("{what}: {}", grid.api_address());
    println!("  data   {}", dir.root().display());
    println!("  run    rgrid run{flag} script.py data.csv");
    println!("  stop   rgrid down{flag}");
    Ok(ExitCode::SUCCESS)
}
