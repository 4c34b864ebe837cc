//! Typed ids: a session's id cannot be passed where a job's id is expected.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A text that is not a valid id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseError {
    /// The text that was given.
    pub text: String,
    /// What was expected, with its article: `a job id`.
    pub expected: &'static str,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id. Ids are ordered by the time at which they were made (`UUIDv7`).
            #[must_use]
            #[allow(clippy::new_without_default, reason = "`default()` should not return a different id each time")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id as a plain UUID, for a database column.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| ParseError { text: text.to_owned(), expected: $what })
            }
        }
    };
}

typed_id!(
    /// A job: one submitted unit of work, across all its attempts.
    JobId, "a job id (a UUID, as `rgrid run -d` prints it)"
);
typed_id!(
    /// A session: one run of a runner process for its worker, new at each start.
    SessionId, "a session id (a UUID)"
);
typed_id!(
    /// An event. It is also the event's `Nats-Msg-Id`.
    EventId, "an event id (a UUID)"
);

typed_id!(
    /// A storage pass: one run of the collector over the store.
    PassId, "a storage pass id (a UUID)"
);
typed_id!(
    /// A batch: jobs that were submitted together.
    BatchId, "a batch id (a UUID, as `rgrid run -d --batch …` prints it)"
);

impl JobId {
    /// Whether this id may be chosen by a client that submits a job: a `UUIDv7`, as [`JobId::new`] makes it.
    #[must_use]
    pub fn is_chosen(self) -> bool {
        self.0.get_version_num() == 7 && self.0.get_variant() == uuid::Variant::RFC4122
    }

    /// The id of a batch's member: a `UUIDv8` of SHA-256("batch", 0, batch, index). It never changes, so a client that knows a batch
    /// knows its jobs, and a batch that is sent again creates no job twice.
    #[must_use]
    pub fn of_member(batch: BatchId, index: u32) -> Self {
        let hash = Sha256::new()
            .chain_update("batch\0")
            .chain_update(batch.uuid().as_bytes())
            .chain_update(index.to_be_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(Uuid::new_v8(bytes))
    }

    /// The id of the job with this key in a namespace: a `UUIDv8` of SHA-256(namespace, 0, key). It never changes.
    #[must_use]
    pub fn of_key(namespace: &Token, key: &str) -> Self {
        let hash = Sha256::new()
            .chain_update(namespace.as_str())
            .chain_update([0])
            .chain_update(key)
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(Uuid::new_v8(bytes))
    }
}

/// A name that can be one token of a NATS subject: 1 to 64 of `a-z A-Z 0-9 _ -`.
///
/// Namespaces, queues and workers are named by tokens. Text from outside is parsed into a token where it enters the program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The longest token, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Token {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError {
                text: text.to_owned(),
                expected: "a name of 1 to 64 letters, digits, `_` and `-`",
            })
        }
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The tenant that a job belongs to. Permissions are granted per namespace.
pub type Namespace = Token;
/// A named queue of jobs.
pub type Queue = Token;
/// A worker: the registered capacity of a machine.
pub type WorkerId = Token;

/// The default name of a namespace or a queue.
#[must_use]
pub fn default_token() -> Token {
    Token("default".to_owned())
}

/// The number of an attempt: one try at a job, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first attempt.
    pub const FIRST: Self = Self(1);

    /// The attempt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of a content, which is also the content's name in the store. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The length in bytes.
    pub const BYTES: usize = 32;

    /// The digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of everything that the hasher has read.
    #[must_use]
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The 32 bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map(|()| Self(bytes))
            .map_err(|_| ParseError {
                text: text.to_owned(),
                expected: "a SHA-256 of 64 hexadecimal digits",
            })
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}
