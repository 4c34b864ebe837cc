//! Three nats-servers: any one may be lost, the leader included, under load.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    envelope::{Actor, Envelope},
    ids::JobId,
    job::{Command, Job, JobEvent, State, decide},
    log::{
        EVENTS,
        append::{Append, Log},
        connect::Bus,
        follow::Follower,
        read::{self, Fact},
    },
    spec::JobSpec,
};
use grid_tests::{
    cluster::Cluster,
    grid::{Grid, Part},
    writer::namespace,
};
use tokio::{sync::mpsc, task::JoinSet};

/// Jobs of one story.
const JOBS: usize = 300;
/// The longest that nothing may start after a server is lost: an election, which nats-server begins after 4 to 9 s of silence, and
/// the time in which clients notice. Here it is 6 to 9 s.
const PAUSE: Duration = Duration::from_secs(20);
/// For how long the log is tried.
const PATIENCE: Duration = Duration::from_secs(60);

async fn submit(log: &Log) -> Result<JobId> {
    let mut spec = JobSpec::new(["/bin/sh", "-c", "sleep 0.05"].map(str::to_owned).to_vec());
    spec.executor = Some(bus::spec::ExecutorKind::Process);
    let (id, spec) = (JobId::new(), Box::new(spec));
    let event = decide(None, Command::Submit { spec })?;
    let envelope = Envelope::new(Actor::Api, event);
    log.append(Append::job(&namespace(), id, 0, &envelope)).await?;
    Ok(id)
}

/// Every event of every job so far, with the time that each arrived here.
fn watch(bus: &Bus) -> (JoinSet<()>, mpsc::UnboundedReceiver<(Instant, Box<bus::job::Recorded>)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let js = bus.js.clone();
    let mut watching = JoinSet::new();
    watching.spawn(async move {
        let mut follower = Follower::new(&js, EVENTS, Vec::new(), 0);
        while !sender.is_closed() {
            let message = follower.next().await;
            if let Ok(Some(Fact::Job(recorded))) = read::decode(&message.subject, message.sequence, &message.payload)
                && sender.send((Instant::now(), recorded)).is_err()
            {
                return;
            }
        }
    });
    (watching, receiver)
}

/// How the jobs stand by the log, and what the services say, for whoever reads of a failure.
async fn standing(bus: &Bus, grid: &Grid, jobs: &BTreeSet<JobId>) -> Result<String> {
    let mut states = std::collections::BTreeMap::<String, usize>::new();
    for id in jobs {
        let state = read::job(&bus.js, *id)
            .await?
            .map_or_else(|| "absent".to_owned(), |job| job.state().to_string());
        *states.entry(state).or_default() += 1;
    }
    let tail = |part| {
        let log = grid.log(part);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    };
    Ok(format!("{states:?}\n{}\n---\n{}", tail(Part::Runner(1)), tail(Part::Watcher)))
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_any_one_server_loses_nothing_and_pauses_dispatch_for_seconds() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let env = vec![
        ("RGRID_NATS", cluster.urls()),
        ("RGRID_REPLICAS", "3".to_owned()),
        ("RGRID_STORE", "nats://?replicas=3".to_owned()),
    ];
    let mut grid = Grid::start_with(&[Part::Watcher, Part::Projector, Part::Api], env).await?;
    grid.run(Part::Runner(1))?;
    grid.run(Part::Runner(2))?;
    grid.worker_is("worker-1", "live").await?;
    grid.worker_is("worker-2", "live").await?;
    let bus = cluster.bus("load").await?;
    let log = Log::new(bus.js.clone(), PATIENCE);
    let (_watching, mut facts) = watch(&bus);

    let mut acknowledged = BTreeSet::new();
    let mut finished = BTreeSet::new();
    let mut longest = Duration::ZERO;
    for lost in ["the leader of the log", "another"] {
        let victim = match lost {
            "the leader of the log" => cluster.leader(&bus, EVENTS).await?,
            _ => (cluster.leader(&bus, EVENTS).await? + 1) % 3,
        };
        let half = acknowledged.len() + JOBS / 4;
        let whole = acknowledged.len() + JOBS / 2;
        let (mut killed, mut last_start) = (false, Instant::now());
        while finished.len() < whole {
            if acknowledged.len() < whole {
                acknowledged.insert(submit(&log).await.with_context(|| format!("{lost} was killed: {killed}"))?);
            }
            if acknowledged.len() == half && !killed {
                cluster.kill(victim)?;
                killed = true;
            }
            // Once all are submitted there is nothing to do but wait for the runners.
            let wait = if acknowledged.len() < whole { Duration::ZERO } else { PATIENCE };
            while let Ok(Some((at, recorded))) = tokio::time::timeout(wait, facts.recv()).await {
                match recorded.envelope.event {
                    JobEvent::Started(_) => {
                        longest = longest.max(at.saturating_duration_since(last_start));
                        last_start = at;
                    }
                    JobEvent::Finished(_) => drop(finished.insert(recorded.job)),
                    _ => {}
                }
                if finished.len() >= whole {
                    break;
                }
            }
            ensure!(
                wait.is_zero() || finished.len() >= whole,
                "{} of {whole} ended after {lost} was lost; {}",
                finished.len(),
                standing(&bus, &grid, &acknowledged).await?
            );
        }
        cluster.launch(victim)?;
        cluster.ready().await?;
    }
    for id in &acknowledged {
        let history = read::history(&bus.js, *id).await?;
        let job = Job::replay(&history).with_context(|| format!("acknowledged job {id} is not in the log"))?;
        ensure!(job.state() == State::Succeeded, "{job:?}");
        let ends = history
            .iter()
            .filter(|recorded| matches!(recorded.envelope.event, JobEvent::Finished(_)));
        ensure!(ends.count() == 1, "job {id} ended twice");
    }
    ensure!(longest < PAUSE, "nothing started for {longest:?}");
    let lost = grid.log(Part::Watcher).matches(" is lost: silent").count();
    ensure!(lost == 0, "{lost} healthy workers were declared lost");
    grid.projected().await?;
    Ok(())
}
