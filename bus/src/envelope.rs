//! The envelope of every event: who published it, when, and what caused it.

use std::{borrow::Cow, fmt, str::FromStr};

use chrono::{DateTime, SubsecRound, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{EventId, ParseError, WorkerId};

/// The publisher of an event. The event's subject names the actor, so that credentials can be limited to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The API, on behalf of a user. Intake also publishes as the API.
    Api,
    /// The watcher.
    Watcher,
    /// A worker: `w-<worker>` in subjects.
    Worker(WorkerId),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::Watcher => f.write_str("watcher"),
            Self::Worker(worker) => write!(f, "w-{worker}"),
        }
    }
}

impl FromStr for Actor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "api" => Ok(Self::Api),
            "watcher" => Ok(Self::Watcher),
            _ => text
                .strip_prefix("w-")
                .and_then(|worker| worker.parse().ok())
                .map(Self::Worker)
                .ok_or_else(|| ParseError {
                    text: text.to_owned(),
                    expected: "an actor (`api`, `watcher` or `w-<worker>`)",
                }),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Actor {
    fn schema_name() -> Cow<'static, str> {
        "Actor".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(api|watcher|w-[A-Za-z0-9_-]{1,64})$" })
    }
}

/// An event that could not be read. Readers skip and count such events.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The message is not an envelope.
    #[error("the message is not an event: its JSON is not an envelope")]
    Envelope(#[source] serde_json::Error),
    /// This program does not know the type, or this version of it.
    #[error("unknown event type `{kind}`: a newer rgrid wrote it; upgrade this rgrid")]
    UnknownType {
        /// The event's type.
        kind: String,
    },
    /// The type is known, but the data do not match it.
    #[error("the data of this `{kind}` event do not match its type")]
    Data {
        /// The event's type.
        kind: String,
        /// What does not match.
        #[source]
        source: serde_json::Error,
    },
}

/// A family of events, for example those of jobs or of workers.
pub trait Event: Serialize + Sized {
    /// The type in the envelope, with its version: `job.claimed.v1`.
    fn kind(&self) -> &'static str;

    /// Reads the data of a type, upcasting old versions.
    ///
    /// # Errors
    /// [`DecodeError::UnknownType`] for a type of another family, [`DecodeError::Data`] for data that do not match the type.
    fn decode(kind: &str, data: &RawValue) -> Result<Self, DecodeError>;
}

/// An event with its publisher, time and cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<E> {
    /// The event's id.
    pub id: EventId,
    /// When the event was made, by its publisher's clock, to the microsecond.
    pub time: DateTime<Utc>,
    /// The publisher.
    pub actor: Actor,
    /// The event that caused this one.
    pub causation_id: Option<EventId>,
    /// The event that began the chain of causes. For a job's events, it is the submission.
    pub correlation_id: Option<EventId>,
    /// The event.
    pub event: E,
}

impl<E> Envelope<E> {
    /// An event made now, without a recorded cause.
    #[must_use]
    pub fn new(actor: Actor, event: E) -> Self {
        Self {
            id: EventId::new(),
            time: Utc::now().trunc_subsecs(6),
            actor,
            causation_id: None,
            correlation_id: None,
            event,
        }
    }

    /// The same event, caused by another event.
    #[must_use]
    pub fn caused_by<C>(mut self, cause: &Envelope<C>) -> Self {
        self.causation_id = Some(cause.id);
        self.correlation_id = Some(cause.correlation_id.unwrap_or(cause.id));
        self
    }
}

#[derive(Serialize)]
struct Written<'a, E> {
    r#type: &'static str,
    id: EventId,
    time: DateTime<Utc>,
    actor: &'a Actor,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<EventId>,
    data: &'a E,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    id: EventId,
    time: DateTime<Utc>,
    actor: Actor,
    #[serde(default)]
    causation_id: Option<EventId>,
    #[serde(default)]
    correlation_id: Option<EventId>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl<E: Event> Envelope<E> {
    /// The event as JSON, as it is stored.
    ///
    /// # Panics
    /// Never: every event can be written as JSON.
    #[must_use]
    #[allow(
        clippy::expect_used,
        reason = "no event has a map with keys that are not text, and only map keys can fail"
    )]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&Written {
            r#type: self.event.kind(),
            id: self.id,
            time: self.time,
            actor: &self.actor,
            causation_id: self.causation_id,
            correlation_id: self.correlation_id,
            data: &self.event,
        })
        .expect("an event is JSON")
    }

    /// Reads a stored event.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, DecodeError> {
        let read: Read<'_> = serde_json::from_slice(bytes).map_err(DecodeError::Envelope)?;
        Ok(Self {
            id: read.id,
            time: read.time,
            actor: read.actor,
            causation_id: read.causation_id,
            correlation_id: read.correlation_id,
            event: E::decode(&read.r#type, read.data)?,
        })
    }
}

/// Reads the data of a known type.
///
/// # Errors
/// [`DecodeError::Data`] if the data do not match the type.
pub(crate) fn data<'a, T: Deserialize<'a>>(kind: &str, data: &'a RawValue) -> Result<T, DecodeError> {
    serde_json::from_str(data.get()).map_err(|source| DecodeError::Data {
        kind: kind.to_owned(),
        source,
    })
}
