//! Stored events, one file for every version of an event that was ever released. A file here is never changed and never removed, because
//! some log contains such an event. A changed event type is a new version, with new files and an upcast from the old version.

use std::{collections::BTreeSet, fs};

use bus::{
    batch::BatchEvent,
    envelope::{Envelope, Event},
    grid::{image::ImageEvent, runtimes::RuntimesEvent},
    job::{JobEvent, LossCause, Outcome},
    worker::WorkerEvent,
};

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// Every type that this program writes.
const TYPES: [&str; 27] = [
    "batch.advanced.v1",
    "batch.cancelled.v1",
    "batch.sealed.v1",
    "batch.stopped.v1",
    "batch.submitted.v1",
    "image.pushed.v1",
    "image.removed.v1",
    "job.cancel_requested.v1",
    "job.cancelled.v1",
    "job.claimed.v1",
    "job.died.v1",
    "job.expired.v1",
    "job.finished.v1",
    "job.released.v1",
    "job.requeued.v1",
    "job.rescheduled.v1",
    "job.returned.v1",
    "job.started.v1",
    "job.submitted.v1",
    "runtimes.set.v1",
    "worker.cordoned.v1",
    "worker.equipped.v1",
    "worker.left.v1",
    "worker.lost.v1",
    "worker.registered.v1",
    "worker.restarting.v1",
    "worker.uncordoned.v1",
];

/// The name and the content of each file.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(DIR).expect("the fixtures are there");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("a file").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read(&path).expect("it can be read"))
    };
    files.map(read).collect()
}

#[test]
fn every_released_event_can_be_read() {
    let mut written = BTreeSet::new();
    for (name, bytes) in fixtures() {
        let kind = if name.starts_with("job.") {
            check::<JobEvent>(&name, &bytes)
        } else if name.starts_with("batch.") {
            check::<BatchEvent>(&name, &bytes)
        } else if name.starts_with("image.") {
            check::<ImageEvent>(&name, &bytes)
        } else if name.starts_with("runtimes.") {
            check::<RuntimesEvent>(&name, &bytes)
        } else {
            check::<WorkerEvent>(&name, &bytes)
        };
        assert!(name == kind || name.starts_with(&format!("{kind}-")), "{name} holds a {kind}");
        written.insert(kind);
    }
    assert_eq!(written.into_iter().collect::<Vec<_>>(), TYPES, "a file for each type");
}

/// Reads an event. If its version is still written, it is written again and must be the same, byte for byte: replay, hashes and consumers
/// in other languages rely on that.
fn check<E: Event>(name: &str, bytes: &[u8]) -> &'static str {
    let envelope = Envelope::<E>::from_json(bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let stored = String::from_utf8_lossy(bytes);
    let kind = envelope.event.kind();
    if stored.starts_with(&format!(r#"{{"type":"{kind}""#)) {
        assert_eq!(String::from_utf8_lossy(&envelope.to_json()), stored.trim_end(), "{name}");
    }
    kind
}

#[test]
fn every_outcome_and_every_cause_has_a_file() {
    let (mut outcomes, mut causes) = (BTreeSet::new(), BTreeSet::new());
    for (_, bytes) in fixtures() {
        match Envelope::<JobEvent>::from_json(&bytes).map(|envelope| envelope.event) {
            Ok(JobEvent::Finished(event)) => outcomes.insert(match event.outcome {
                Outcome::Succeeded => 0,
                Outcome::Failed { .. } => 1,
                Outcome::Signalled { .. } => 2,
                Outcome::TimedOut { .. } => 3,
                Outcome::OutOfMemory { .. } => 4,
                Outcome::Cancelled => 5,
                Outcome::Error { .. } => 6,
            }),
            Ok(JobEvent::Rescheduled(event)) => causes.insert(match event.cause {
                LossCause::WorkerLost { .. } => 0,
                LossCause::SessionEnded { .. } => 1,
                LossCause::Orphaned { .. } => 2,
            }),
            _ => false,
        };
    }
    assert_eq!((outcomes.len(), causes.len()), (7, 3));
}

#[test]
fn an_unknown_version_is_refused_with_its_name() {
    let (_, bytes) = fixtures().into_iter().find(|(name, _)| name == "job.claimed.v1").expect("there");
    let text = String::from_utf8(bytes).expect("text").replace("job.claimed.v1", "job.claimed.v2");
    let error = Envelope::<JobEvent>::from_json(text.as_bytes()).expect_err("unknown");
    assert!(error.to_string().contains("`job.claimed.v2`"), "{error}");
    // Fields that a newer program adds to a known version are ignored.
    let more = text
        .replace("job.claimed.v2", "job.claimed.v1")
        .replace(r#""data":{"#, r#""more":1,"data":{"more":[],"#);
    assert!(Envelope::<JobEvent>::from_json(more.as_bytes()).is_ok());
}
