//! Examples for the contract: real values, written as the programs write them.

use std::collections::BTreeMap;

use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, Digest, EventId, JobId, SessionId, Token, default_token},
    job::{Finished, JobEvent, ManifestRef, Outcome, Usage},
    spec::{
        Resources,
        submission::{InlineFile, Submission},
    },
};
use chrono::{DateTime, Utc};
use model::{Kind, Problem, Submitted as Answer};
use serde_json::{Value, json};
use uuid::Uuid;

const HELLO: &str = "import sys\nprint('hello', sys.argv[1])\n";

fn uuid(last: u128) -> Uuid {
    Uuid::from_u128(0x0190_f3c2_4a5b_7c00_8000_0000_0000_0000 + last)
}

fn time() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 123_456_000).unwrap_or_default()
}

/// The examples, by the name that the template calls them.
pub(super) fn all() -> anyhow::Result<BTreeMap<&'static str, Value>> {
    Ok(BTreeMap::from([
        ("submission", serde_json::to_value(submission()?)?),
        ("answer", serde_json::to_value(answer())?),
        ("problem", serde_json::to_value(problem())?),
        ("refused", refused()),
        ("finished", serde_json::from_slice(&finished()?.to_json())?),
    ]))
}

fn submission() -> anyhow::Result<Submission> {
    Ok(Submission {
        command: vec!["hello.py".to_owned(), "world".to_owned()],
        runtime: Some("python".to_owned()),
        files: vec![InlineFile {
            path: "hello.py".parse()?,
            content: HELLO.to_owned(),
            executable: false,
        }],
        resources: Some(Resources {
            memory_bytes: Some(512_000_000),
            ..Resources::default()
        }),
        timeout_ms: Some(60_000),
        labels: BTreeMap::from([("order".to_owned(), "4711".to_owned())]),
        key: Some("order-4711".to_owned()),
        ..Submission::default()
    })
}

fn answer() -> Answer {
    Answer {
        id: uuid(1).into(),
        sequence: 1042,
        namespace: default_token(),
        existed: false,
        reused: false,
        warning: None,
    }
}

fn problem() -> Problem {
    Problem::new(Kind::Refused, "`command` is empty; give the program or script and its arguments")
}

fn refused() -> Value {
    let body = r#"{"command":[]}"#;
    json!({
        "time": time(),
        "subject": "rgrid.submit.default.default",
        "sequence": 17,
        "reason": problem().detail,
        "body": body,
        "body_bytes": body.len(),
    })
}

fn finished() -> anyhow::Result<Envelope<JobEvent>> {
    let worker: Token = "node-7".parse()?;
    let event = JobEvent::Finished(Box::new(Finished {
        attempt: Attempt::FIRST,
        session: SessionId::from(uuid(2)),
        outcome: Outcome::Succeeded,
        manifest: Some(ManifestRef {
            links: 0,
            sha256: Digest::of(b""),
            files: 1,
            bytes: 2048,
            stdout_bytes: 12,
            stderr_bytes: 0,
            deleted: 0,
            notes: 0,
        }),
        usage: Usage {
            wall_ms: 41,
            cpu_ms: Some(35),
            memory_bytes: Some(9_400_320),
        },
        retry_after_ms: None,
    }));
    Ok(Envelope {
        id: EventId::from(uuid(3)),
        time: time(),
        actor: Actor::Worker(worker),
        causation_id: Some(EventId::from(uuid(4))),
        correlation_id: Some(EventId::from(JobId::from(uuid(5)).uuid())),
        event,
    })
}
