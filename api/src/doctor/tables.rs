//! Checks Postgres and the projector, and reports failed jobs from the tables.

use std::time::Duration;

use bus::log::EVENTS;
use chrono::{DateTime, Utc};
use model::{Finding, WorkerView, describe_loss};

use super::{PATIENCE, count};
use crate::{app::App, queries::Counts};

/// How many events the tables may lag behind while the projector makes progress.
const LAG_MAX: u64 = 10_000;
/// How long the projector may make no progress while the tables lag behind.
const STUCK_AFTER: Duration = Duration::from_millis(1_500);

/// What the tables say; empty where Postgres does not answer.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) workers: Option<Vec<WorkerView>>,
    pub(super) jobs: Option<Counts>,
    /// Queues with jobs that wait for a worker, how many, and since when.
    pub(super) queued: Vec<(String, u64, DateTime<Utc>)>,
    /// The last event that they hold.
    pub(super) sequence: Option<u64>,
    pub(super) findings: Vec<Finding>,
}

pub(super) async fn look(app: &App) -> Result<Known, Vec<Finding>> {
    if !app.tables.is_configured() {
        let what = "this API was started without Postgres: jobs run, but lists do not work";
        return Err(vec![Finding::notice(
            "postgres",
            what,
            "start it with --database-url, and start a projector",
        )]);
    }
    const ADVICE: &str = "start Postgres, and read its log and the projector's; jobs run without it, and the tables catch up";
    match tokio::time::timeout(PATIENCE, Box::pin(read(app))).await {
        Ok(Ok(known)) => Ok(known),
        Ok(Err(problem)) => Err(vec![Finding::error("postgres", problem.0.detail, ADVICE)]),
        Err(_) => {
            let what = format!("Postgres did not answer within {} s", PATIENCE.as_secs());
            Err(vec![Finding::error("postgres", what, ADVICE)])
        }
    }
}

async fn read(app: &App) -> Result<Known, crate::error::ApiError> {
    let tables = &app.tables;
    let mut known = Known {
        sequence: Some(tables.sequence().await?),
        workers: Some(tables.workers().await?),
        jobs: Some(tables.live_jobs().await?),
        queued: tables.queued().await?,
        findings: Vec::new(),
    };
    let skipped = tables.skipped().await?;
    if let Some(last) = skipped.last {
        let (sequence, subject, reason) = last;
        known.findings.push(Finding::warning(
            "log",
            format!(
                "{} of the log cannot be decoded, and {} skipped; the last: sequence {sequence}, on {subject}: {reason}",
                count(skipped.count, "message"),
                if skipped.count == 1 { "is" } else { "are" }
            ),
            "if a newer version of rgrid wrote them, upgrade this one and run `rgrid projector rebuild`; otherwise find out what else writes to the log",
        ));
    }
    known.findings.extend(dead(&tables.dead().await?));
    known.findings.extend(losing(tables.losing().await?));
    Ok(known)
}

fn dead(dead: &crate::queries::Dead) -> Option<Finding> {
    let causes: Vec<String> = dead
        .causes
        .iter()
        .map(|(cause, jobs)| format!("{} ({jobs})", describe_loss(cause)))
        .collect();
    (dead.count > 0).then(|| {
        let are = if dead.count == 1 { "is" } else { "are" };
        Finding::warning(
            "jobs",
            format!(
                "{} {are} dead, with all attempts lost: {}",
                count(dead.count, "job"),
                causes.join("; ")
            ),
            "`rgrid list --state dead` shows them; when the cause is removed, `rgrid requeue` revives one job, a queue, or all",
        )
        .since(dead.last)
    })
}

fn losing(jobs: Vec<(bus::ids::JobId, String, u64)>) -> Vec<Finding> {
    let finding = |(job, name, losses): (bus::ids::JobId, String, u64)| {
        Finding::warning(
            "jobs",
            format!("job {job} ({name}) has lost {losses} attempts because their workers were lost; the job may be the cause"),
            format!("see `rgrid history {job}`; give the job a memory limit (--memory), or cancel it: `rgrid cancel {job}`"),
        )
    };
    jobs.into_iter().map(finding).collect()
}

/// Whether the tables keep up with the log.
pub(super) async fn lag(app: &App, known: &Known, last: u64) -> Option<Finding> {
    let first = known.sequence?;
    let began = tokio::time::Instant::now();
    let mut now = first;
    while now < last && now == first && began.elapsed() < STUCK_AFTER {
        tokio::time::sleep(STUCK_AFTER / 10).await;
        now = app.tables.sequence().await.ok()?;
    }
    let behind = last.saturating_sub(now);
    if behind == 0 || (now > first && behind < LAG_MAX) {
        return None;
    }
    let since = time_of(app, now + 1).await;
    Some(if now == first {
        let what = format!("the projector makes no progress, {behind} events behind the log: lists are out of date");
        Finding::error(
            "projector",
            what,
            "start it (`rgrid projector`), or read its log; jobs go on meanwhile",
        )
        .since(since)
    } else {
        let what = format!("the projector is {behind} events behind the log and catching up: lists are out of date");
        Finding::warning("projector", what, "wait; if it does not catch up, give Postgres a faster disk").since(since)
    })
}

/// When the event at a sequence was stored.
async fn time_of(app: &App, sequence: u64) -> Option<DateTime<Utc>> {
    let log = app.bus.js.get_stream_no_info(EVENTS).await.ok()?;
    let message = log.direct_get(sequence).await.ok()?;
    DateTime::from_timestamp(message.time.unix_timestamp(), message.time.nanosecond())
}
