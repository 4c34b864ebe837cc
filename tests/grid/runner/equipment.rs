//! What a worker has to run scripts by: its last word is kept, and the log does not grow by it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bus::{
    envelope::{Actor, Envelope},
    grid::runtimes::{RuntimeDefinition, RuntimesEvent, RuntimesSet},
    ids::{Token, WorkerId},
    job::State,
    log::{
        EQUIPMENT,
        append::Append,
        read::{self, WorkerHistory},
        setup, sys,
    },
    subjects,
    worker::{CurrentEquipment, WorkerEvent},
};

use super::{LONG, Yard};
use crate::log::eventually;

impl Yard {
    /// Has the deployment know a runtime of this name, and no other: what each worker has changes by that.
    async fn deploys(&self, runtime: &str) -> Result<()> {
        let meaning = RuntimeDefinition {
            interpreter: vec!["sh".to_owned()],
            ..RuntimeDefinition::default()
        };
        let set = RuntimesSet {
            runtimes: [(runtime.parse::<Token>()?, meaning)].into(),
            aliases: BTreeMap::new(),
        };
        let (_, last) = sys::runtimes(&self.writer.bus.js).await?;
        let envelope = Envelope::new(Actor::Api, RuntimesEvent::Set(set));
        self.writer.log.append(Append::runtimes(last, &envelope)).await?;
        Ok(())
    }

    /// Waits until the worker `w` says that it has this runtime.
    async fn has(&self, runtime: &str) -> Result<CurrentEquipment> {
        let (worker, name) = ("w".parse::<WorkerId>()?, runtime.parse::<Token>()?);
        eventually(&format!("the worker has {runtime}"), LONG, async || {
            let Ok(stream) = self.writer.bus.js.get_stream(EQUIPMENT).await else {
                return Ok(None);
            };
            let Ok(message) = stream.direct_get_last_for_subject(subjects::equipment(&worker)).await else {
                return Ok(None);
            };
            let current: CurrentEquipment = serde_json::from_slice(&message.payload)?;
            Ok(current.equipped.runtimes.contains_key(&name).then_some(current))
        })
        .await
    }

    /// How many messages the stream holds.
    async fn said(&self) -> Result<u64> {
        Ok(self.writer.bus.js.get_stream(EQUIPMENT).await?.cached_info().state.messages)
    }

    /// What the log says of the worker `w`.
    async fn of_worker(&self) -> Result<Vec<WorkerEvent>> {
        let WorkerHistory { events, .. } = read::worker(&self.writer.bus.js, &"w".parse()?).await?;
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }
}

#[tokio::test]
async fn many_changes_of_what_a_worker_has_leave_one_message_and_nothing_in_the_log() -> Result<()> {
    let yard = Yard::start().await?;
    let _runner = yard.runner(&[])?;
    for change in 0..12 {
        let runtime = format!("runtime-{change}");
        yard.deploys(&runtime).await?;
        yard.has(&runtime).await?;
    }
    let events = yard.of_worker().await?;
    ensure!(matches!(events[..], [WorkerEvent::Registered(_)]), "{events:?}");
    assert_eq!(yard.said().await?, 1);
    Ok(())
}

/// It stands there for the registration that it is of, and a runner that comes back to the same worker says it anew.
#[tokio::test]
async fn what_a_worker_has_is_said_of_its_registration() -> Result<()> {
    let yard = Yard::start().await?;
    yard.deploys("greet").await?;
    let mut sessions = Vec::new();
    for round in 0..2 {
        let runner = yard.runner(&[])?;
        let worker: WorkerId = "w".parse()?;
        let current = eventually("this runner says it", LONG, async || {
            let current = yard.has("greet").await?;
            Ok((!sessions.contains(&current.equipped.session)).then_some(current))
        })
        .await?;
        let stored = read::back_to(&yard.writer.bus.js, bus::log::EVENTS, &subjects::worker(&worker), 0).await?;
        let last = stored.last().with_context(|| format!("round {round}: it is registered"))?;
        let envelope = Envelope::<WorkerEvent>::from_json(&last.payload)?;
        assert_eq!(envelope.time, current.registered_at, "round {round}");
        sessions.push(current.equipped.session);
        drop(runner);
    }
    Ok(())
}

/// A grid may have no room for the stream. Then it is not known what its workers have, and that is all.
#[tokio::test]
async fn without_the_stream_jobs_run_and_the_log_does_not_grow_either() -> Result<()> {
    let yard = Yard::start().await?;
    let runner = yard.runner(&[])?;
    yard.deploys("before").await?;
    yard.has("before").await?;
    yard.writer.bus.js.delete_stream(EQUIPMENT).await?;
    yard.deploys("meanwhile").await?;
    runner.says("there is no stream RGRID_EQUIPMENT").await?;
    let job = yard.ended(yard.script("true").await?).await?;
    ensure!(job.state() == State::Succeeded, "{job:?}");
    let events = yard.of_worker().await?;
    ensure!(matches!(events[..], [WorkerEvent::Registered(_)]), "{events:?}");
    setup::streams(&yard.writer.bus.js, 1).await?;
    yard.has("meanwhile").await?;
    Ok(())
}
