//! The envelope around every event: who said it, when, and because of what.

use std::{borrow::Cow, fmt, str::FromStr};

use chrono::{DateTime, SubsecRound, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{EventId, ParseError, WorkerId};

/// Who says an event. It stands in the event's subject, so that credentials can be bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The API, on behalf of a user; intake too.
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

/// An event that could not be read. It is set aside and counted; it never stops a consumer.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not an envelope.
    #[error("the message is not an event: it lacks the envelope's JSON")]
    Envelope(#[source] serde_json::Error),
    /// A type, or a version of one, that this program does not know.
    #[error("unknown event type `{kind}`: a newer rgrid wrote it; upgrade this one")]
    UnknownType {
        /// The type that stands in the event.
        kind: String,
    },
    /// The type is known, and its data are not of its shape.
    #[error("the data of this `{kind}` are not of its shape")]
    Data {
        /// The type that stands in the event.
        kind: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// A family of events: those of jobs, or of workers.
pub trait Event: Serialize + Sized {
    /// The type that stands in the envelope, with its version: `job.claimed.v1`.
    fn kind(&self) -> &'static str;

    /// Reads the data of a type, upcasting old versions.
    ///
    /// # Errors
    /// [`DecodeError::UnknownType`] for a type that is not of this family, [`DecodeError::Data`] for data of another shape.
    fn decode(kind: &str, data: &RawValue) -> Result<Self, DecodeError>;
}

/// A fact in the past tense, with who said it, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<E> {
    /// The event's identity.
    pub id: EventId,
    /// When it was said, by the clock of who said it, to the microsecond.
    pub time: DateTime<Utc>,
    /// Who said it.
    pub actor: Actor,
    /// The event that caused this one.
    pub causation_id: Option<EventId>,
    /// The event that the whole chain began with; a job's events name its submission.
    pub correlation_id: Option<EventId>,
    /// What happened.
    pub event: E,
}

impl<E> Envelope<E> {
    /// An event said now, caused by nothing that is recorded.
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

    /// The same event, because of another one.
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
    /// The event as the JSON that is stored.
    ///
    /// # Panics
    /// Never: events hold only what JSON can carry.
    #[must_use]
    #[allow(
        clippy::expect_used,
        reason = "no event holds a map with keys that are not text, which is all that could fail"
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

    /// Reads an event back.
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
/// [`DecodeError::Data`] where they are not of its shape.
pub(crate) fn data<'a, T: Deserialize<'a>>(kind: &str, data: &'a RawValue) -> Result<T, DecodeError> {
    serde_json::from_str(data.get()).map_err(|source| DecodeError::Data {
        kind: kind.to_owned(),
        source,
    })
}
