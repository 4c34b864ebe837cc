//! Streams and consumers, made from the definitions in `nats/streams` or checked against them.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{EQUIPMENT, EVENTS, INBOX, UNDELIVERABLE};
use crate::{ids::Queue, spec::Class, subjects};

/// The definitions, in the order that they are made: a source before what is sourced from it, and last the log, which takes what the
/// others leave.
/// `nats stream add --config` reads the same files.
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

/// What an operator may set as the machine allows; everything else must be as defined.
const TUNABLE: [&str; 5] = ["description", "max_bytes", "max_age", "num_replicas", "max_msg_size"];
/// What a stream of an earlier rgrid lacks, and is given at the next start: it takes nothing from anybody.
const GIVEN: [&str; 1] = ["allow_atomic"];
/// Streams that a grid can do without, where the server has no room for them.
const DISPENSABLE: [&str; 2] = [EQUIPMENT, UNDELIVERABLE];
/// The smallest bound that a stream is made with where the disk does not allow the defined one.
const LEAST_BYTES: u64 = 16 << 20;
/// What the server answers when a stream's bound is more than it may still store (`JSStorageResourcesExceededErr`,
/// `JSMemoryResourcesExceededErr` and the account's limit).
const NO_ROOM: [u64; 3] = [10047, 10028, 10002];
/// What passes by itself: no leader yet, or not enough servers for the replicas (`JSClusterNotAvailErr`,
/// `JSClusterNotLeaderErr`, `JSClusterNoPeersErr`, `JSInsufficientResourcesErr` while servers are coming up).
const NOT_YET: [u64; 4] = [10008, 10009, 10005, 10023];
/// For how long a cluster that is not ready is waited for, and how often it is asked.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(500));
/// The server has a stream of that name with another configuration (`JSStreamNameExistErr`).
const NAME_TAKEN: u64 = 10058;
/// The server has no stream of that name.
pub(super) const NOT_FOUND: u64 = 10059;

/// Why the streams are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition in `nats/streams` cannot be read.
    #[error("a stream definition is not JSON")]
    Definition(#[source] serde_json::Error),
    /// The server did not answer.
    #[error("JetStream did not answer about stream {stream}")]
    Request {
        /// Which stream.
        stream: String,
        /// What happened.
        #[source]
        source: jetstream::context::RequestError,
    },
    /// The server would not make the stream.
    #[error("JetStream refused stream {stream}: {reason}")]
    Refused {
        /// Which stream.
        stream: String,
        /// The server's words.
        reason: String,
    },
    /// The cluster cannot hold the stream yet.
    #[error("the NATS cluster is not ready for stream {stream} ({reason}); it needs a leader, and as many servers as replicas")]
    NotYet {
        /// Which stream.
        stream: String,
        /// The server's words.
        reason: String,
    },
    /// The stream is there, and is another one.
    #[error(
        "stream {stream} is not as rgrid needs it: `{field}` is {found} and must be {wanted}; \
         change it with `nats stream edit {stream}`, or give rgrid an account of its own"
    )]
    Mismatch {
        /// Which stream.
        stream: String,
        /// The field's name in the definition.
        field: String,
        /// What it is.
        found: Value,
        /// What it must be.
        wanted: Value,
    },
    /// The server would not make a consumer.
    #[error("cannot make consumer {consumer}")]
    Consumer {
        /// Which consumer.
        consumer: String,
        /// What happened.
        #[source]
        source: jetstream::stream::ConsumerError,
    },
}

impl Error {
    /// Whether it may pass by itself: the broker is away, or has no leader.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Request { .. } | Self::NotYet { .. })
    }
}

/// Makes every stream that is not there, with this many replicas, and checks every one that is. Safe to run at every start.
/// A cluster that has no leader yet, or too few servers for the replicas, is waited for, a minute at most.
///
/// # Errors
/// If the server refuses, or a stream is there that is not as defined.
pub async fn streams(js: &jetstream::Context, replicas: u8) -> Result<(), Error> {
    let since = Instant::now();
    let mut told = false;
    loop {
        match each_stream(js, replicas).await {
            Err(error @ Error::NotYet { .. }) if since.elapsed() < PATIENCE.0 => {
                if !std::mem::replace(&mut told, true) {
                    warn!("{error}; waiting for it");
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

/// Gives a stream what an earlier rgrid did not know of, if that is all that it lacks.
async fn amend(
    js: &jetstream::Context,
    stream: &str,
    wanted: &Value,
    mut config: Value,
    mut lacks: (String, Value, Value),
) -> Result<(), Error> {
    for given in GIVEN {
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
            info!("brought stream {stream} up to this version");
            Ok(())
        }
        Some(reason) => Err(Error::Refused {
            stream: stream.to_owned(),
            reason,
        }),
    }
}

/// Makes a stream with the largest bound that the server's disk allows, halving from the defined one.
async fn create(js: &jetstream::Context, stream: &str, mut wanted: Value) -> Result<(), Error> {
    loop {
        let answer = request(js, stream, "CREATE", &wanted).await?;
        let Some(reason) = refusal(&answer) else {
            info!("made stream {stream}");
            return Ok(());
        };
        if answer["error"]["err_code"] == NAME_TAKEN {
            // Another service made it meanwhile, from the same definition, with a bound for which there was room.
            info!("stream {stream} was made by another service just now");
            return Ok(());
        }
        let bytes = wanted["max_bytes"].as_u64().unwrap_or(0);
        let no_room = answer["error"]["err_code"].as_u64().is_some_and(|code| NO_ROOM.contains(&code)) || lacks_storage(&reason);
        if no_room && bytes / 2 < LEAST_BYTES && DISPENSABLE.contains(&stream) {
            warn!("no room on the server's disk for stream {stream}: the grid goes on without it");
            return Ok(());
        }
        if !no_room || bytes / 2 < LEAST_BYTES {
            return Err(Error::Refused {
                stream: stream.to_owned(),
                reason,
            });
        }
        warn!("no room on the server's disk for stream {stream} with {bytes} bytes; trying half");
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

/// Where a cluster says why no server of it will do.
fn lacks_storage(reason: &str) -> bool {
    reason.contains("insufficient storage")
}

fn refusal(answer: &Value) -> Option<String> {
    let error = answer.get("error")?;
    Some(error["description"].as_str().map_or_else(|| error.to_string(), ToOwned::to_owned))
}

/// The first field that is defined, is not for the operator to set, and is not as defined.
pub(super) fn mismatch(wanted: &Value, found: &Value) -> Option<(String, Value, Value)> {
    let absent = |value: &Value| value.is_null() || *value == json!(false);
    wanted
        .as_object()?
        .iter()
        .filter(|(field, _)| !TUNABLE.contains(&field.as_str()))
        .find(|(field, value)| !(covers(value, &found[field.as_str()]) || absent(value) && absent(&found[field.as_str()])))
        .map(|(field, value)| (field.clone(), found[field.as_str()].clone(), value.clone()))
}

/// Whether all that is wanted is found; the server adds defaults to what it was given.
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

/// The durable consumer that hands out the work of one class in a queue.
#[must_use]
pub fn work_consumer_name(queue: &Queue, class: Class) -> String {
    format!("work-{queue}-{class}")
}

/// Makes the consumers of a queue's work, one for every class. Safe to run at every start.
///
/// # Errors
/// If the server refuses one.
pub async fn work_consumers(js: &jetstream::Context, queue: &Queue) -> Result<(), Error> {
    for class in Class::ALL {
        let config = consumer::pull::Config {
            filter_subject: subjects::work(queue, class),
            // A claim takes a millisecond; a runner that is cut off must not sit on messages for long.
            ack_wait: std::time::Duration::from_secs(2),
            // A surplus NAK must never use a job up; poison is counted in attempts.
            max_deliver: -1,
            max_ack_pending: 10_000,
            max_waiting: 8_192,
            ..durable(&work_consumer_name(queue, class))
        };
        make(js, EVENTS, config).await?;
    }
    Ok(())
}

/// The durable consumer of the inbox; every intake shares it.
pub const INTAKE: &str = "intake";

/// Makes the consumer of the inbox. Safe to run at every start.
///
/// # Errors
/// If the server refuses it.
pub async fn intake_consumer(js: &jetstream::Context) -> Result<(), Error> {
    let config = consumer::pull::Config {
        // Whoever takes longer gives signs of life; what an intake that died had in hand comes back soon.
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
    fn a_mismatch_names_the_field_and_an_operators_bound_is_none() {
        let wanted: Value = serde_json::from_str(include_str!("../../../nats/streams/RGRID_EVENTS.json")).expect("JSON");
        let mut found = wanted.clone();
        found["max_bytes"] = json!(1);
        found["republish"]["headers_only"] = json!(false);
        assert!(mismatch(&wanted, &found).is_none());
        found["deny_delete"] = json!(false);
        assert_eq!(mismatch(&wanted, &found).map(|(field, ..)| field), Some("deny_delete".to_owned()));
    }
}
