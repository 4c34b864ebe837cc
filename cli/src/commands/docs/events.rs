//! docs/events.md: the template, filled with tables and schemas of the types.

use std::fmt::Write as _;

use anyhow::Context as _;
use bus::{
    batch::{BatchAdvanced, BatchCancelled, BatchSealed, BatchStopped, BatchSubmitted},
    grid::{
        image::{ImagePushed, ImageRemoved},
        runtimes::RuntimesSet,
    },
    job::{CancelRequested, Cancelled, Claimed, Died, Expired, Finished, Released, Requeued, Rescheduled, Returned, Started, Submitted},
    output::manifest::Manifest,
    spec::submission::Submission,
    worker::{Cordoned, CurrentEquipment, Equipped, Heartbeat, Left, Lost, Registered, Restarting, Uncordoned},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{render, samples};

const TEMPLATE: &str = include_str!("events.template.md");

/// Types that the template places itself.
const PLACED: [&str; 4] = ["Submission", "Manifest", "Heartbeat", "CurrentEquipment"];

/// An event type, and where it is published.
struct Kind {
    /// The type in the envelope.
    kind: &'static str,
    /// The type of the event's data.
    data: &'static str,
    /// Who publishes it, and where.
    by: &'static str,
    /// What it means.
    means: &'static str,
}

const READY: &str = "on `rgrid.evt.<namespace>.job.<job>.ready.<queue>.<class>`";

#[rustfmt::skip]
const JOB: [Kind; 12] = [
    Kind { kind: "job.submitted.v1", data: "Submitted", by: "the API or its intake, READY; with a condition (`start`), on `….by.api`", means: "The job was accepted. Without a start condition it is ready to run, and this event is its entry in the queue." },
    Kind { kind: "job.claimed.v1", data: "Claimed", by: "its worker", means: "A worker claimed the job." },
    Kind { kind: "job.started.v1", data: "Started", by: "its worker", means: "The job's command started." },
    Kind { kind: "job.finished.v1", data: "Finished", by: "its worker", means: "The attempt ended on its worker, and its outputs are committed. This is the job's last event, unless it has `retry_after_ms`." },
    Kind { kind: "job.returned.v1", data: "Returned", by: "its worker", means: "The worker returned the job to the queue. Either the job was prefetched and the worker has no free slot for it, so that the command did not run; or, with `interrupted`, the command ended because the worker was shutting down. This does not count as a failure or a loss. `job.released.v1` follows." },
    Kind { kind: "job.rescheduled.v1", data: "Rescheduled", by: "the watcher, READY", means: "The attempt was lost, and the job waits for a worker again." },
    Kind { kind: "job.cancel_requested.v1", data: "CancelRequested", by: "the API; the watcher for a batch that fails fast", means: "The cancellation of the job was requested while a worker had it. `job.finished.v1` follows." },
    Kind { kind: "job.cancelled.v1", data: "Cancelled", by: "the API or the watcher", means: "The job was cancelled. No worker had it, or its worker was lost. This is the job's last event." },
    Kind { kind: "job.died.v1", data: "Died", by: "the watcher", means: "The job has no attempts left. This is the job's last event, unless it is requeued." },
    Kind { kind: "job.released.v1", data: "Released", by: "the watcher, READY", means: "The job's start conditions are met, or its pause after a failure is over, or its worker returned it. The job waits for a worker." },
    Kind { kind: "job.expired.v1", data: "Expired", by: "the watcher", means: "The job waited longer than its limit, and ended as `timed_out`. This is the job's last event, unless it is requeued." },
    Kind { kind: "job.requeued.v1", data: "Requeued", by: "the API, READY", means: "An operator revived a dead or expired job. The job waits for a worker again. Losses, failures and time limits start from zero." },
];

const BATCH_BY_API: &str = "the API, on `rgrid.evt.<namespace>.batch.<batch>`";
const BATCH_BY_WATCHER: &str = "the watcher, on `rgrid.evt.<namespace>.batch.<batch>`";

#[rustfmt::skip]
const BATCH: [Kind; 5] = [
    Kind { kind: "batch.submitted.v1", data: "BatchSubmitted", by: BATCH_BY_API, means: "The batch was accepted, and its members are about to be submitted." },
    Kind { kind: "batch.sealed.v1", data: "BatchSealed", by: BATCH_BY_API, means: "All members are in the log. If this event is missing, the submission was interrupted; submitting the same batch again completes it." },
    Kind { kind: "batch.advanced.v1", data: "BatchAdvanced", by: BATCH_BY_WATCHER, means: "Slots of the batch's window were given to members. Their `job.released.v1` follow immediately." },
    Kind { kind: "batch.stopped.v1", data: "BatchStopped", by: BATCH_BY_WATCHER, means: "Too many members failed. Members that have not started are cancelled." },
    Kind { kind: "batch.cancelled.v1", data: "BatchCancelled", by: BATCH_BY_API, means: "A user cancelled the batch. Its members are cancelled." },
];

#[rustfmt::skip]
const WORKER: [Kind; 7] = [
    Kind { kind: "worker.registered.v1", data: "Registered", by: "the worker", means: "A runner began a session for the worker. Attempts of all other sessions of this worker have ended." },
    Kind { kind: "worker.lost.v1", data: "Lost", by: "the watcher", means: "The worker's heartbeats stopped. Its attempts are rescheduled." },
    Kind { kind: "worker.left.v1", data: "Left", by: "the worker", means: "The worker's runner ended the session in an orderly shutdown." },
    Kind { kind: "worker.restarting.v1", data: "Restarting", by: "the worker", means: "The worker's runner is about to restart, and will resume the attempts whose containers keep running. Missing heartbeats are ignored until the deadline." },
    Kind { kind: "worker.cordoned.v1", data: "Cordoned", by: "the API", means: "An operator cordoned the worker: it takes no new jobs, in this and in later sessions. With `drain`, it also gives up the jobs that it has." },
    Kind { kind: "worker.uncordoned.v1", data: "Uncordoned", by: "the API", means: "An operator uncordoned the worker: it takes jobs again." },
    Kind { kind: "worker.equipped.v1", data: "Equipped", by: "the worker", means: "The complete inventory of the worker. Earlier versions published this event when the session was registered, and at each change. Newer versions [publish inventories elsewhere](#inventories)." },
];

#[rustfmt::skip]
const SYS: [Kind; 3] = [
    Kind { kind: "runtimes.set.v1", data: "RuntimesSet", by: "the API, on `rgrid.evt.sys.runtimes`", means: "The content of the deployment's `runtimes.toml` was replaced." },
    Kind { kind: "image.pushed.v1", data: "ImagePushed", by: "the API, on `rgrid.evt.sys.image.<name>`", means: "The grid stores an image under this name. It replaces the earlier image of that name." },
    Kind { kind: "image.removed.v1", data: "ImageRemoved", by: "the API, on `rgrid.evt.sys.image.<name>`", means: "The grid no longer stores an image under this name." },
];

/// The JSON Schemas of all types.
pub(super) struct Contract {
    definitions: Map<String, Value>,
}

impl Contract {
    /// Generates the schemas.
    pub(super) fn new() -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        add::<Submission>(&mut generator);
        add::<Manifest>(&mut generator);
        add::<Heartbeat>(&mut generator);
        add::<CurrentEquipment>(&mut generator);
        add::<Submitted>(&mut generator);
        add::<Claimed>(&mut generator);
        add::<Started>(&mut generator);
        add::<Finished>(&mut generator);
        add::<Returned>(&mut generator);
        add::<Rescheduled>(&mut generator);
        add::<CancelRequested>(&mut generator);
        add::<Cancelled>(&mut generator);
        add::<Died>(&mut generator);
        add::<Released>(&mut generator);
        add::<Expired>(&mut generator);
        add::<Requeued>(&mut generator);
        add::<BatchSubmitted>(&mut generator);
        add::<BatchSealed>(&mut generator);
        add::<BatchAdvanced>(&mut generator);
        add::<BatchStopped>(&mut generator);
        add::<BatchCancelled>(&mut generator);
        add::<Registered>(&mut generator);
        add::<Lost>(&mut generator);
        add::<Left>(&mut generator);
        add::<Restarting>(&mut generator);
        add::<Cordoned>(&mut generator);
        add::<Uncordoned>(&mut generator);
        add::<Equipped>(&mut generator);
        add::<RuntimesSet>(&mut generator);
        add::<ImagePushed>(&mut generator);
        add::<ImageRemoved>(&mut generator);
        add::<bus::envelope::Actor>(&mut generator);
        Self {
            definitions: generator.take_definitions(true),
        }
    }

    /// One JSON Schema document of all types, with the data type of each event.
    pub(super) fn schema(&self) -> Value {
        let kinds = JOB.iter().chain(&BATCH).chain(&WORKER).chain(&SYS);
        let events: Map<String, Value> = kinds
            .map(|kind| (kind.kind.to_owned(), json!({ "$ref": format!("#/$defs/{}", kind.data) })))
            .collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "rgrid: the data of each event, by its type",
            "properties": events,
            "$defs": self.definitions,
        })
    }

    fn type_of(&self, name: &str) -> anyhow::Result<&Value> {
        self.definitions.get(name).with_context(|| format!("no type {name}"))
    }

    fn events(&self, kinds: &[Kind]) -> anyhow::Result<String> {
        let mut text = String::new();
        for kind in kinds {
            let by = kind.by.replace("READY", READY);
            let _ = write!(text, "### `{}`\n\n{} Published by {by}.\n\n", kind.kind, kind.means);
            text.push_str(&render::body(self.type_of(kind.data)?));
            text.push('\n');
        }
        Ok(text.trim_end().to_owned())
    }

    /// The types that other types refer to.
    fn types(&self) -> String {
        let is_event = |name: &str| JOB.iter().chain(&BATCH).chain(&WORKER).chain(&SYS).any(|kind| kind.data == name);
        let mut text = String::new();
        for (name, schema) in self
            .definitions
            .iter()
            .filter(|(name, _)| !is_event(name) && !PLACED.contains(&name.as_str()))
        {
            let _ = write!(text, "### {name}\n\n{}\n", render::described(schema));
        }
        text.trim_end().to_owned()
    }
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// docs/events.md.
///
/// # Errors
/// If the template has an unknown marker.
pub(super) fn markdown() -> anyhow::Result<String> {
    let contract = Contract::new();
    let examples = samples::all()?;
    let mut text = String::new();
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (marker, behind) = after.split_once("}}").context("a marker in the template is not closed")?;
        text.push_str(before);
        let put = match marker.split_once(':') {
            Some(("example", name)) => {
                let example = examples.get(name).with_context(|| format!("no example {name}"))?;
                format!("```json\n{}\n```", serde_json::to_string_pretty(example)?)
            }
            Some(("type", name)) => format!(
                "**{name}**<a id=\"{}\"></a>\n\n{}",
                name.to_lowercase(),
                render::described(contract.type_of(name)?)
            )
            .trim_end()
            .to_owned(),
            Some(("events", "job")) => contract.events(&JOB)?,
            Some(("events", "batch")) => contract.events(&BATCH)?,
            Some(("events", "worker")) => contract.events(&WORKER)?,
            Some(("events", "sys")) => contract.events(&SYS)?,
            None if marker == "types" => contract.types(),
            None if marker == "subjects" => render::subjects(),
            None if marker == "streams" => render::streams()?,
            None if marker == "schema" => serde_json::to_string_pretty(&contract.schema())?,
            _ => anyhow::bail!("the template has the unknown marker `{marker}`"),
        };
        text.push_str(&put);
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use bus::{
        batch::BatchEvent,
        envelope::Event as _,
        grid::{image::ImageEvent, runtimes::RuntimesEvent},
        ids::Attempt,
        job::JobEvent,
        worker::WorkerEvent,
    };

    use super::*;

    /// Total over the events of jobs, so that a new one does not compile until it is placed in the tables too.
    const fn of_job(event: &JobEvent) -> &'static str {
        match event {
            JobEvent::Submitted(_) => "Submitted",
            JobEvent::Claimed(_) => "Claimed",
            JobEvent::Started(_) => "Started",
            JobEvent::Finished(_) => "Finished",
            JobEvent::Returned(_) => "Returned",
            JobEvent::Rescheduled(_) => "Rescheduled",
            JobEvent::CancelRequested(_) => "CancelRequested",
            JobEvent::Cancelled(_) => "Cancelled",
            JobEvent::Died(_) => "Died",
            JobEvent::Released(_) => "Released",
            JobEvent::Expired(_) => "Expired",
            JobEvent::Requeued(_) => "Requeued",
        }
    }

    /// Total over the events of workers.
    const fn of_worker(event: &WorkerEvent) -> &'static str {
        match event {
            WorkerEvent::Registered(_) => "Registered",
            WorkerEvent::Lost(_) => "Lost",
            WorkerEvent::Left(_) => "Left",
            WorkerEvent::Restarting(_) => "Restarting",
            WorkerEvent::Cordoned(_) => "Cordoned",
            WorkerEvent::Uncordoned(_) => "Uncordoned",
            WorkerEvent::Equipped(_) => "Equipped",
        }
    }

    #[test]
    fn the_tables_name_the_data_type_of_each_event() {
        let cancelled = JobEvent::Cancelled(Cancelled { reason: None });
        let left = WorkerEvent::Left(Left {
            session: bus::ids::SessionId::new(),
        });
        let claimed = JobEvent::Claimed(Claimed {
            attempt: Attempt::FIRST,
            worker: bus::ids::default_token(),
            session: bus::ids::SessionId::new(),
        });
        for (kind, data) in [
            (cancelled.kind(), of_job(&cancelled)),
            (claimed.kind(), of_job(&claimed)),
            (left.kind(), of_worker(&left)),
        ] {
            assert!(
                JOB.iter().chain(&WORKER).any(|known| known.kind == kind && known.data == data),
                "{kind}"
            );
        }
    }

    #[test]
    fn every_event_in_the_tables_can_be_read() {
        // Invalid data: for a known type, the error is about the data and not about the type.
        let raw = serde_json::value::to_raw_value(&json!(7)).expect("JSON");
        for kind in &JOB {
            assert!(
                matches!(JobEvent::decode(kind.kind, &raw), Err(bus::envelope::DecodeError::Data { .. })),
                "{}",
                kind.kind
            );
        }
        for kind in &BATCH {
            assert!(
                matches!(BatchEvent::decode(kind.kind, &raw), Err(bus::envelope::DecodeError::Data { .. })),
                "{}",
                kind.kind
            );
        }
        for kind in &SYS {
            let runtimes = RuntimesEvent::decode(kind.kind, &raw);
            let image = ImageEvent::decode(kind.kind, &raw);
            assert!(
                matches!(runtimes, Err(bus::envelope::DecodeError::Data { .. }))
                    || matches!(image, Err(bus::envelope::DecodeError::Data { .. })),
                "{}",
                kind.kind
            );
        }
        for kind in &WORKER {
            assert!(
                matches!(WorkerEvent::decode(kind.kind, &raw), Err(bus::envelope::DecodeError::Data { .. })),
                "{}",
                kind.kind
            );
        }
    }
}
