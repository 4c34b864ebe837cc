//! docs/events.md: the template, with what the types say put into it.

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
    worker::{Beat, Cordoned, CurrentEquipment, Equipped, Left, Lost, Registered, Restarting, Uncordoned},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{render, samples};

const TEMPLATE: &str = include_str!("events.template.md");

/// Types that have a place of their own in the template.
const PLACED: [&str; 4] = ["Submission", "Manifest", "Beat", "CurrentEquipment"];

/// An event type, and where it is said.
struct Kind {
    /// The type that stands in the envelope.
    kind: &'static str,
    /// Its data's type.
    data: &'static str,
    /// Who says it.
    by: &'static str,
    /// What it means.
    means: &'static str,
}

const READY: &str = "on `rgrid.evt.<namespace>.job.<job>.ready.<queue>.<class>`";

#[rustfmt::skip]
const JOB: [Kind; 12] = [
    Kind { kind: "job.submitted.v1", data: "Submitted", by: "the API or its intake, READY; with a condition (`start`), on `….by.api`", means: "It was accepted, and without a condition it is ready to run: this is the queue entry too." },
    Kind { kind: "job.claimed.v1", data: "Claimed", by: "its worker", means: "A worker took it." },
    Kind { kind: "job.started.v1", data: "Started", by: "its worker", means: "Its command runs." },
    Kind { kind: "job.finished.v1", data: "Finished", by: "its worker", means: "Its attempt ended on its worker, and what it made is committed. The job's last event, unless it names `retry_after_ms`." },
    Kind { kind: "job.returned.v1", data: "Returned", by: "its worker", means: "It took it ahead of having room for it, and has none after all: its command did not run. Or, with `interrupted`, its command ended because the worker was being shut down. Nothing counts against the job; `job.released.v1` follows." },
    Kind { kind: "job.rescheduled.v1", data: "Rescheduled", by: "the watcher, READY", means: "Its attempt was given up, and it waits for a worker again." },
    Kind { kind: "job.cancel_requested.v1", data: "CancelRequested", by: "the API; the watcher for a batch that fails fast", means: "Its end was asked for while a worker had it. `job.finished.v1` follows." },
    Kind { kind: "job.cancelled.v1", data: "Cancelled", by: "the API or the watcher", means: "It ended without running, or without its worker, because a user asked for that. The job's last event." },
    Kind { kind: "job.died.v1", data: "Died", by: "the watcher", means: "Its attempts are used up. The job's last event, unless it is requeued." },
    Kind { kind: "job.released.v1", data: "Released", by: "the watcher, READY", means: "What it waited for is true, or its pause after a failure is over, or its worker gave it back; it waits for a worker." },
    Kind { kind: "job.expired.v1", data: "Expired", by: "the watcher", means: "It waited longer than it may, and ended as `timed_out`. The job's last event, unless it is requeued." },
    Kind { kind: "job.requeued.v1", data: "Requeued", by: "the API, READY", means: "An operator revived a dead or expired job; it waits for a worker again, with its losses, failures and clocks at zero." },
];

const BATCH_BY_API: &str = "the API, on `rgrid.evt.<namespace>.batch.<batch>`";
const BATCH_BY_WATCHER: &str = "the watcher, on `rgrid.evt.<namespace>.batch.<batch>`";

#[rustfmt::skip]
const BATCH: [Kind; 5] = [
    Kind { kind: "batch.submitted.v1", data: "BatchSubmitted", by: BATCH_BY_API, means: "Its members are about to be submitted." },
    Kind { kind: "batch.sealed.v1", data: "BatchSealed", by: BATCH_BY_API, means: "All of its members are in the log. A batch without this was cut off half-way; the same one submitted again completes it." },
    Kind { kind: "batch.advanced.v1", data: "BatchAdvanced", by: BATCH_BY_WATCHER, means: "Slots of its window were given to members; their `job.released.v1` follow at once." },
    Kind { kind: "batch.stopped.v1", data: "BatchStopped", by: BATCH_BY_WATCHER, means: "Too many of its members failed; those that have not started are cancelled." },
    Kind { kind: "batch.cancelled.v1", data: "BatchCancelled", by: BATCH_BY_API, means: "A user ended it; its members are cancelled." },
];

#[rustfmt::skip]
const WORKER: [Kind; 7] = [
    Kind { kind: "worker.registered.v1", data: "Registered", by: "the worker", means: "A runner began a session for it. Attempts of any other session of this worker are over." },
    Kind { kind: "worker.lost.v1", data: "Lost", by: "the watcher", means: "Its heartbeats lapsed. Its attempts are rescheduled." },
    Kind { kind: "worker.left.v1", data: "Left", by: "the worker", means: "Its runner ended the session in good order." },
    Kind { kind: "worker.restarting.v1", data: "Restarting", by: "the worker", means: "Its runner is about to restart, and comes back to the containers that it leaves running. Until the deadline its silence does not count." },
    Kind { kind: "worker.cordoned.v1", data: "Cordoned", by: "the API", means: "An operator wants it to take no new work, over all its sessions; with `drain`, what it executes is to leave it as well." },
    Kind { kind: "worker.uncordoned.v1", data: "Uncordoned", by: "the API", means: "An operator lets it take work again." },
    Kind { kind: "worker.equipped.v1", data: "Equipped", by: "the worker", means: "What it can run scripts by, all of it. Earlier versions said so once the session was registered, and at each change; now they [say it elsewhere](#what-workers-have)." },
];

#[rustfmt::skip]
const SYS: [Kind; 3] = [
    Kind { kind: "runtimes.set.v1", data: "RuntimesSet", by: "the API, on `rgrid.evt.sys.runtimes`", means: "The deployment's `runtimes.toml` is this from now on." },
    Kind { kind: "image.pushed.v1", data: "ImagePushed", by: "the API, on `rgrid.evt.sys.image.<name>`", means: "The grid keeps an image under this name, in place of any before it." },
    Kind { kind: "image.removed.v1", data: "ImageRemoved", by: "the API, on `rgrid.evt.sys.image.<name>`", means: "The grid does not keep it any more." },
];

/// What the types say.
pub(super) struct Contract {
    definitions: Map<String, Value>,
}

impl Contract {
    /// Asks the types.
    pub(super) fn new() -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        add::<Submission>(&mut generator);
        add::<Manifest>(&mut generator);
        add::<Beat>(&mut generator);
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
            let _ = write!(text, "### `{}`\n\n{} Said by {by}.\n\n", kind.kind, kind.means);
            text.push_str(&render::body(self.type_of(kind.data)?));
            text.push('\n');
        }
        Ok(text.trim_end().to_owned())
    }

    /// The types that others refer to.
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
/// If the template names something that there is not.
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
            _ => anyhow::bail!("the template asks for `{marker}`, which there is not"),
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
    fn each_kind_is_the_one_that_the_type_says() {
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
        // Data that is none: a known type complains of the data, and not of the type.
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
