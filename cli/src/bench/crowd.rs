//! Many jobs at once: `process` and `noop`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use bus::{
    ids::JobId,
    job::Outcome,
    spec::{ExecutorKind, Resources, submission::Submission},
};
use client::{Client, Events};
use model::{Projection, SubmittedMany, SubmittedOne};
use serde::{Deserialize, Serialize};

use super::{
    floor,
    grid::{Grid, job},
    rounded::seconds,
};

/// How long nothing may end before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at how far the tables are.
const LOOK: Duration = Duration::from_millis(2);
/// CPUs that a noop job asks for, in thousandths: it uses none, and many fit side by side.
const NOOP_CPU_MILLI: u32 = 10;
/// Jobs of one request, at most.
const BATCH: usize = 10_000;

/// `process`.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) jobs: u32,
    pub(super) wall_s: f64,
    pub(super) projected_s: f64,
    pub(super) floor_s: f64,
    pub(super) ratio: f64,
}

/// `noop`.
#[derive(Debug, Serialize)]
pub(super) struct Noop {
    pub(super) jobs: u32,
    pub(super) wall_s: f64,
    pub(super) jobs_per_s: f64,
    pub(super) projected_s: f64,
}

/// Runs jobs of `/bin/true`.
///
/// # Errors
/// If one of them does not succeed.
pub(super) async fn process(grid: &Grid, jobs: u32) -> anyhow::Result<Process> {
    // Before and after: a busy machine is so for both.
    let before = floor::xargs(jobs).await?;
    let took = crowd(&grid.client, jobs, &job(&["/bin/true"], ExecutorKind::Process, None)).await?;
    let after = floor::xargs(jobs).await?;
    let floor_s = before.midpoint(after);
    let ratio = seconds(took.wall.as_secs_f64() / floor_s);
    Ok(Process {
        jobs,
        wall_s: seconds(took.wall.as_secs_f64()),
        projected_s: seconds(took.projected.as_secs_f64()),
        floor_s: seconds(floor_s),
        ratio,
    })
}

/// Runs jobs that start nothing.
///
/// # Errors
/// If one of them does not succeed.
pub(super) async fn noop(grid: &Grid, jobs: u32) -> anyhow::Result<Noop> {
    let resources = Resources {
        cpu_milli: NOOP_CPU_MILLI,
        ..Resources::default()
    };
    let took = crowd(&grid.client, jobs, &job(&["noop"], ExecutorKind::Noop, Some(resources))).await?;
    let wall_s = took.wall.as_secs_f64();
    let jobs_per_s = (f64::from(jobs) / wall_s).round();
    Ok(Noop {
        jobs,
        wall_s: seconds(wall_s),
        jobs_per_s,
        projected_s: seconds(took.projected.as_secs_f64()),
    })
}

struct Took {
    /// From the submission to the last end.
    wall: Duration,
    /// From there until the tables had it.
    projected: Duration,
}

/// What we need of a fact.
#[derive(Deserialize)]
struct Fact {
    sequence: u64,
    job: JobId,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    outcome: Outcome,
}

async fn crowd(client: &Client, jobs: u32, each: &Submission) -> anyhow::Result<Took> {
    // Open before the first submission, so that no end is missed.
    let mut ends = Events::open(client, "/v1/facts", &[("types", "job.finished".to_owned())], None).await?;
    let jobs = jobs as usize;
    let bodies: Vec<Vec<&Submission>> = (0..jobs).step_by(BATCH).map(|from| vec![each; BATCH.min(jobs - from)]).collect();
    let begun = Instant::now();
    let (ours, mut ended) = tokio::try_join!(submit(client, &bodies), collect(&mut ends, jobs))?;
    let mut wall = begun.elapsed();
    // Ends of other jobs on the same grid were counted too: wait for what is left of ours.
    while let Some(job) = ours.iter().find(|job| !ended.contains_key(job)) {
        while !ended.contains_key(job) {
            let fact = next(&mut ends).await?;
            ended.insert(fact.job, (fact.sequence, fact.data.outcome));
        }
        wall = begun.elapsed();
    }
    let mut last = 0;
    for (job, (sequence, outcome)) in ours.iter().filter_map(|job| Some((job, ended.get(job)?))) {
        ensure!(*outcome == Outcome::Succeeded, "job {job} did not succeed: {outcome:?}");
        last = last.max(*sequence);
    }
    let ended_at = Instant::now();
    while client.get::<Projection, _>("/v1/projection", &()).await?.sequence < last {
        ensure!(
            ended_at.elapsed() < PATIENCE,
            "the tables do not follow; is the projector up (`rgrid status`)?"
        );
        tokio::time::sleep(LOOK).await;
    }
    Ok(Took {
        wall,
        projected: ended_at.elapsed(),
    })
}

async fn submit(client: &Client, bodies: &[Vec<&Submission>]) -> anyhow::Result<Vec<JobId>> {
    let mut ids = Vec::new();
    for body in bodies {
        let many: SubmittedMany = client.post("/v1/jobs", body).await?;
        for one in many.jobs {
            match one {
                SubmittedOne::Job(job) => ids.push(job.id),
                SubmittedOne::Refused { problem } => bail!("a job was refused: {}", problem.detail),
            }
        }
    }
    Ok(ids)
}

/// The first so many ends: each job's, with its sequence.
async fn collect(ends: &mut Events, jobs: usize) -> anyhow::Result<HashMap<JobId, (u64, Outcome)>> {
    let mut ended = HashMap::with_capacity(jobs);
    while ended.len() < jobs {
        let fact = next(ends).await?;
        ended.insert(fact.job, (fact.sequence, fact.data.outcome));
    }
    Ok(ended)
}

async fn next(ends: &mut Events) -> anyhow::Result<Fact> {
    let Ok(next) = tokio::time::timeout(PATIENCE, ends.next()).await else {
        bail!(
            "no job ended for {} s; is a worker of the queue `default` up (`rgrid workers`)?",
            PATIENCE.as_secs()
        );
    };
    let Some(event) = next? else {
        bail!("the API stopped telling what happens; is it up (`rgrid status`)?")
    };
    Ok(serde_json::from_str(&event.data)?)
}
