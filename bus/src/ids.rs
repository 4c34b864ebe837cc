//! Identities: typed, so that a session can never be passed where a job is meant.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// An identity that could not be read from text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseError {
    /// What was given.
    pub text: String,
    /// What it should have been, with its article.
    pub expected: &'static str,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new identity, ordered by the time it was made (`UUIDv7`).
            #[must_use]
            #[allow(clippy::new_without_default, reason = "a default identity would be a different one each time")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The identity as a plain UUID, for a database column.
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
    /// One submitted job, across all its attempts.
    JobId, "a job id (a UUID, as `rgrid run -d` prints it)"
);
typed_id!(
    /// One run of a runner process for its worker, new at each start.
    SessionId, "a session id (a UUID)"
);
typed_id!(
    /// One event. Also its `Nats-Msg-Id`.
    EventId, "an event id (a UUID)"
);

typed_id!(
    /// One pass of the collection of what is no longer used.
    PassId, "a collection's id (a UUID)"
);
typed_id!(
    /// Jobs that were submitted together.
    BatchId, "a batch id (a UUID, as `rgrid run -d --batch …` prints it)"
);

impl JobId {
    /// Whether it is an id that whoever submits a job may choose: a `UUIDv7`, as [`JobId::new`] makes it.
    #[must_use]
    pub fn is_chosen(self) -> bool {
        self.0.get_version_num() == 7 && self.0.get_variant() == uuid::Variant::RFC4122
    }

    /// The member of a batch at this place, the same for ever: a `UUIDv8` of SHA-256("batch", 0, batch, index). So whoever
    /// knows a batch knows its jobs, and a batch that is sent again makes none twice.
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

    /// The job that a key names in a namespace, the same for ever: a `UUIDv8` of SHA-256(namespace, 0, key).
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

/// A name that can stand as one token of a NATS subject: 1 to 64 of `a-z A-Z 0-9 _ -`.
///
/// Namespaces, queues and workers are named by tokens; outside text becomes one at the border.
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

/// The tenant that a job belongs to; permissions keep namespaces apart by it.
pub type Namespace = Token;
/// A named lane of work.
pub type Queue = Token;
/// A machine's registered capacity.
pub type WorkerId = Token;

/// The name that namespaces and queues have unless one is given.
#[must_use]
pub fn default_token() -> Token {
    Token("default".to_owned())
}

/// One try at a job, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
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

/// The SHA-256 of some content, which is also its name in the store; written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// How many bytes it has.
    pub const BYTES: usize = 32;

    /// The digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest that a hasher arrived at.
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
