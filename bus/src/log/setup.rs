//! Streams and consumers: created from the definitions in `nats/streams`, or checked against them.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{EQUIPMENT, EVENTS, INBOX, UNDELIVERABLE};
use crate::{ids::Queue, spec::Class, subjects};

/// The definitions, in the order of creation: a source before the stream that uses it, and the log last, because it takes the room that
/// the others leave. `nats stream add --config` reads the same files.
pub(super) const DEFINITIONS: [&str; 10] = [
    include_str!("../../../nats/streams/RGRID_PRESENCE.json"),
    include_str!("../../../nats/streams/RGRID_HEARTBEATS.json"),
    include_str!("../../../nats/streams/RGRID_LOGS.json"),
    include_str!("../../../nats/streams/RGRID_INBOX.json"),
    include_str!("../../../nats/streams/RGRID_REFUSED.json"),
    include_str!("../../../nats/streams/RGRID_SECRETS.json"),
    include_str!("../../../nats/streams/RGRID_MARKS.json"),
    include_str!("../../../nats/streams/RGRID_EQUIPMENT.json"),
    include_str!("../../../nats/streams/RGRID_UNDELIVERABLE.json"),
    include_str!("../../../nats/streams/RGRID_EVENTS.json"),
];

/// Fields that an operator may change. All other fields must be as defined.
const TUNABLE: [&str; 5] = ["description", "max_bytes", "max_age", "num_replicas", "max_msg_size"];
/// Fields that a stream of an earlier rgrid lacks. They are added at the next start, and take nothing away.
const ADDED: [&str; 1] = ["allow_atomic"];
/// Streams that a grid can do without if the server has no room for them.
const DISPENSABLE: [&str; 2] = [EQUIPMENT, UNDELIVERABLE];
/// The smallest bound of a stream, in bytes, if the disk has no room for the defined one.
const LEAST_BYTES: u64 = 16 << 20;
/// The server's errors if a stream's bound is larger than what it may still store (`JSStorageResourcesExceededErr`,
/// `JSMemoryResourcesExceededErr` and the account's limit).
const NO_ROOM: [u64; 3] = [10047, 10028, 10002];
/// The server's errors that pass by themselves: no leader yet, or not enough servers for the replicas (`JSClusterNotAvailErr`,
/// `JSClusterNotLeaderErr`, `JSClusterNoPeersErr`, `JSInsufficientResourcesErr` while servers start).
const NOT_YET: [u64; 4] = [10008, 10009, 10005, 10023];
/// How long to wait for a cluster that is not ready, and how often to ask it.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(500));
/// The server's error if it has a stream of that name with another configuration (`JSStreamNameExistErr`).
const NAME_TAKEN: u64 = 10058;
/// The server's error if it has no stream of that name.
pub(super) const NOT_FOUND: u64 = 10059;

/// Why the streams are not set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition in `nats/streams` cannot be read.
    #[error("a stream definition is not JSON")]
    Definition(#[source] serde_json::Error),
    /// The server did not answer.
    #[error("JetStream did not answer about stream {stream}")]
    Request {
        /// The stream.
        stream: String,
        /// The error.
        #[source]
        source: jetstream::context::RequestError,
    },
    /// The server refused to create or change the stream.
    #[error("JetStream refused stream {stream}: {reason}")]
    Refused {
        /// The stream.
        stream: String,
        /// The server's error message.
        reason: String,
    },
    /// The cluster cannot create the stream yet.
    #[error("the NATS cluster is not ready for stream {stream} ({reason}); it needs a leader, and as many servers as replicas")]
    NotYet {
        /// The stream.
        stream: String,
        /// The server's error message.
        reason: String,
    },
    /// The stream exists, with another configuration.
    #[error(
        "stream {stream} has a wrong configuration: `{field}` is {found} and must be {wanted}; \
         change it with `nats stream edit {stream}`, or give rgrid an account of its own"
    )]
    Mismatch {
        /// The stream.
        stream: String,
        /// The name of the field.
        field: String,
        /// The field's value.
        found: Value,
        /// The field's required value.
        wanted: Value,
    },
    /// The server refused to create a consumer.
    #[error("cannot create consumer {consumer}")]
    Consumer {
        /// The consumer.
        consumer: String,
        /// The error.
        #[source]
        source: jetstream::stream::ConsumerError,
    },
}

impl Error {
    /// Whether the error may pass on its own: the broker is unreachable, or has no leader.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Request { .. } | Self::NotYet { .. })
    }
}

/// Creates missing streams with this many replicas, and checks the existing ones. Safe to call at every start. If a cluster has no leader
/// yet, or too few servers for the replicas, this waits for it, for at most one minute.
///
/// # Errors
/// If the server refuses, or if a stream is not as defined.
pub async fn streams(js: &jetstream::Context, replicas: u8) -> Result<(), Error> {
    let since = Instant::now();
    let mut told = false;
    loop {
        match each_stream(js, replicas).await {
            Err(error @ Error::NotYet { .. }) if since.elapsed() < PATIENCE.0 => {
                if !std::mem::replace(&mut told, true) {
                    warn!("{error}; waiting for the cluster");
                }
                tokio::time::sleep(PATIENCE.1).await;
            }
            done => return done,
        }
    }
}

async fn each_stream(js: &jetstream::Context, replicas: u8) -> Result<(), Error> {
    for text in DEFINITIONS {
        let mut wanted: Value = serde_json::from_str(text).map_err(Error::Definition)?;
        wanted["num_replicas"] = json!(replicas);
        let stream = wanted["name"].as_str().unwrap_or_default().to_owned();
        let info = request(js, &stream, "INFO", &json!({})).await?;
        if info["error"]["err_code"] == NOT_FOUND {
            create(js, &stream, wanted).await?;
        } else if let Some(reason) = refusal(&info) {
            return Err(Error::Refused { stream, reason });
        } else if let Some(mismatch) = mismatch(&wanted, &info["config"]) {
            amend(js, &stream, &wanted, info["config"].clone(), mismatch).await?;
        }
    }
    Ok(())
}

/// Adds the fields that an earlier rgrid did not know, if the stream lacks nothing else.
async fn amend(
    js: &jetstream::Context,
    stream: &str,
    wanted: &Value,
    mut config: Value,
    mut lacks: (String, Value, Value),
) -> Result<(), Error> {
    for given in ADDED {
        if lacks.0 == given {
            config[given] = wanted[given].clone();
            match mismatch(wanted, &config) {
                Some(more) => lacks = more,
                None => return update(js, stream, &config).await,
            }
        }
    }
    let (field, found, wanted) = lacks;
    Err(Error::Mismatch {
        stream: stream.to_owned(),
        field,
        found,
        wanted,
    })
}

async fn update(js: &jetstream::Context, stream: &str, config: &Value) -> Result<(), Error> {
    let answer = request(js, stream, "UPDATE", config).await?;
    match refusal(&answer) {
        None => {
            info!("updated stream {stream} to this version");
            Ok(())
        }
        Some(reason) => Err(Error::Refused {
            stream: stream.to_owned(),
            reason,
        }),
    }
}

/// Creates a stream with the largest bound for which the server's disk has room: the defined one, or half of it, a quarter, ….
async fn create(js: &jetstream::Context, stream: &str, mut wanted: Value) -> Result<(), Error> {
    loop {
        let answer = request(js, stream, "CREATE", &wanted).await?;
        let Some(reason) = refusal(&answer) else {
            info!("created stream {stream}");
            return Ok(());
        };
        if answer["error"]["err_code"] == NAME_TAKEN {
            // Another service has just created it from the same definition, with a bound for which there was room.
            info!("stream {stream} was just created by another service");
            return Ok(());
        }
        let bytes = wanted["max_bytes"].as_u64().unwrap_or(0);
        let no_room = answer["error"]["err_code"].as_u64().is_some_and(|code| NO_ROOM.contains(&code)) || lacks_storage(&reason);
        if no_room && bytes / 2 < LEAST_BYTES && DISPENSABLE.contains(&stream) {
            warn!("no room on the server's disk for stream {stream}: the grid continues without it");
            return Ok(());
        }
        if !no_room || bytes / 2 < LEAST_BYTES {
            return Err(Error::Refused {
                stream: stream.to_owned(),
                reason,
            });
        }
        warn!("no room on the server's disk for stream {stream} with {bytes} bytes; trying half of that");
        wanted["max_bytes"] = json!(bytes / 2);
    }
}

pub(super) async fn request(js: &jetstream::Context, stream: &str, verb: &str, payload: &Value) -> Result<Value, Error> {
    let answer: Result<Value, _> = js.request(format!("STREAM.{verb}.{stream}"), payload).await;
    let answer = answer.map_err(|source| Error::Request {
        stream: stream.to_owned(),
        source,
    })?;
    match answer["error"]["err_code"].as_u64() {
        Some(code) if NOT_YET.contains(&code) => match refusal(&answer).unwrap_or_default() {
            reason if lacks_storage(&reason) => Ok(answer),
            reason => Err(Error::NotYet {
                stream: stream.to_owned(),
                reason,
            }),
        },
        _ => Ok(answer),
    }
}

/// Whether a cluster's error means that no server has room.
fn lacks_storage(reason: &str) -> bool {
    reason.contains("insufficient storage")
}

fn refusal(answer: &Value) -> Option<String> {
    let error = answer.get("error")?;
    Some(error["description"].as_str().map_or_else(|| error.to_string(), ToOwned::to_owned))
}

/// The first field that is not as defined, and that an operator may not change.
pub(super) fn mismatch(wanted: &Value, found: &Value) -> Option<(String, Value, Value)> {
    let absent = |value: &Value| value.is_null() || *value == json!(false);
    wanted
        .as_object()?
        .iter()
        .filter(|(field, _)| !TUNABLE.contains(&field.as_str()))
        .find(|(field, value)| !(covers(value, &found[field.as_str()]) || absent(value) && absent(&found[field.as_str()])))
        .map(|(field, value)| (field.clone(), found[field.as_str()].clone(), value.clone()))
}

/// Whether the found value contains the wanted one. The server adds defaults to what it was given.
fn covers(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|found| covers(value, found))),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| covers(wanted, found))
        }
        (wanted, found) => wanted == found,
    }
}

/// The name of the durable consumer of a work queue: one queue and class.
#[must_use]
pub fn work_consumer_name(queue: &Queue, class: Class) -> String {
    format!("work-{queue}-{class}")
}

/// Creates the consumers of a queue: one work queue for each class. Safe to call at every start.
///
/// # Errors
/// If the server refuses one.
pub async fn work_consumers(js: &jetstream::Context, queue: &Queue) -> Result<(), Error> {
    for class in Class::ALL {
        let config = consumer::pull::Config {
            filter_subject: subjects::work(queue, class),
            // A claim takes a millisecond, and a runner that lost its connection must not hold messages for long.
            ack_wait: std::time::Duration::from_secs(2),
            // Redeliveries must never use up a job. Failing jobs are limited by the number of their attempts.
            max_deliver: -1,
            max_ack_pending: 10_000,
            max_waiting: 8_192,
            ..durable(&work_consumer_name(queue, class))
        };
        make(js, EVENTS, config).await?;
    }
    Ok(())
}

/// The durable consumer of the inbox, which all intakes share.
pub const INTAKE: &str = "intake";

/// Creates the consumer of the inbox. Safe to call at every start.
///
/// # Errors
/// If the server refuses it.
pub async fn intake_consumer(js: &jetstream::Context) -> Result<(), Error> {
    let config = consumer::pull::Config {
        // An intake that needs longer reports progress. The messages of an intake that died are soon delivered again.
        ack_wait: std::time::Duration::from_secs(5),
        max_deliver: -1,
        max_ack_pending: 1_000,
        ..durable(INTAKE)
    };
    make(js, INBOX, config).await
}

fn durable(name: &str) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(name.to_owned()),
        ack_policy: consumer::AckPolicy::Explicit,
        deliver_policy: consumer::DeliverPolicy::All,
        ..consumer::pull::Config::default()
    }
}

async fn make(js: &jetstream::Context, stream: &str, config: consumer::pull::Config) -> Result<(), Error> {
    let name = config.durable_name.clone().unwrap_or_default();
    js.create_consumer_on_stream(config, stream)
        .await
        .map(|_| ())
        .map_err(|source| Error::Consumer { consumer: name, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_json_and_name_their_streams() {
        for text in DEFINITIONS {
            let definition: Value = serde_json::from_str(text).expect("JSON");
            assert!(definition["name"].as_str().is_some_and(|name| name.starts_with("RGRID_")));
            assert!(mismatch(&definition, &definition).is_none());
        }
    }

    #[test]
    fn a_mismatch_names_the_field_and_an_operators_bound_is_not_a_mismatch() {
        let wanted: Value = serde_json::from_str(include_str!("../../../nats/streams/RGRID_EVENTS.json")).expect("JSON");
        let mut found = wanted.clone();
        found["max_bytes"] = json!(1);
        found["republish"]["headers_only"] = json!(false);
        assert!(mismatch(&wanted, &found).is_none());
        found["deny_delete"] = json!(false);
        assert_eq!(mismatch(&wanted, &found).map(|(field, ..)| field), Some("deny_delete".to_owned()));
    }
}
