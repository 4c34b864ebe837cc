//! Images that the grid keeps itself: the catalogue that says under which name which archive is in the store.

use std::{borrow::Cow, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Envelope, Event, data},
    ids::{Digest, ParseError},
};

/// The name of an image, with its tag: `rgrid/python:3.11`. Without one it is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);

/// The longest name, in bytes.
const NAME_MAX: usize = 255;

impl ImageName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one token of a subject. Dots would end it, and no name has a `=`.
    pub(crate) fn token(&self) -> String {
        self.0.replace('.', "=")
    }

    /// The name that a token stands for.
    pub(crate) fn of_token(token: &str) -> Option<Self> {
        token.replace('=', ".").parse().ok()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
        let last = text.rsplit('/').next().unwrap_or_default();
        let sound = !text.starts_with(['/', '-', '.', ':']) && !text.ends_with(['/', ':']) && !text.contains("..");
        let tagged = last.matches(':').count();
        if text.is_empty() || text.len() > NAME_MAX || !text.bytes().all(fits) || !sound || tagged > 1 {
            return Err(ParseError {
                text: text.to_owned(),
                expected: "the name of an image (`rgrid/python:3.11`)",
            });
        }
        Ok(Self(if tagged == 1 { text.to_owned() } else { format!("{text}:latest") }))
    }
}

impl Serialize for ImageName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ImageName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What happens to a name of the catalogue. On `rgrid.evt.sys.image.<name>`, where a `.` of the name is a `=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ImageEvent {
    /// The name stands for this archive from now on.
    Pushed(ImagePushed),
    /// The name stands for nothing any more.
    Removed(ImageRemoved),
}

/// `image.pushed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImagePushed {
    /// The SHA-256 of its archive in the store: what `docker save` writes, compressed with zstd.
    pub archive: Digest,
    /// The size of the archive in bytes.
    pub archive_bytes: u64,
    /// Docker's own id of the image (`sha256:…`), as it was where it was pushed from.
    pub id: String,
    /// Its size in Docker, in bytes.
    pub size: u64,
    /// What it runs on: `linux/amd64`.
    pub platform: String,
    /// Who pushed it, as they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `image.removed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ImageRemoved {
    /// Who removed it, as they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Event for ImageEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Pushed(_) => "image.pushed.v1",
            Self::Removed(_) => "image.removed.v1",
        }
    }

    fn decode(kind: &str, raw: &RawValue) -> Result<Self, DecodeError> {
        Ok(match kind {
            "image.pushed.v1" => Self::Pushed(data(kind, raw)?),
            "image.removed.v1" => Self::Removed(data(kind, raw)?),
            _ => return Err(DecodeError::UnknownType { kind: kind.to_owned() }),
        })
    }
}

/// An event of the catalogue as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The image's name, from the subject.
    pub name: ImageName,
    /// Where it stands in `RGRID_EVENTS`.
    pub sequence: u64,
    /// What happened.
    pub envelope: Envelope<ImageEvent>,
}

/// An image of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: ImageName,
    /// What was pushed.
    pub pushed: ImagePushed,
    /// When.
    pub at: DateTime<Utc>,
}

/// What is asked of a name of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// It is to stand for this archive.
    Push(ImagePushed),
    /// It is to stand for nothing.
    Remove(ImageRemoved),
}

/// Why a command changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It stands for nothing.
    #[error("there is no such image")]
    Absent,
    /// It stands for just that already, whoever pushed it.
    #[error("the image stands so already")]
    Unchanged,
}

/// Decides what a command comes to.
///
/// # Errors
/// If it changes nothing.
pub fn decide(entry: Option<&Entry>, command: &Command) -> Result<ImageEvent, Rejection> {
    let nobodys = |pushed: &ImagePushed| ImagePushed {
        by: None,
        ..pushed.clone()
    };
    match (command, entry) {
        (Command::Push(pushed), Some(now)) if nobodys(pushed) == nobodys(&now.pushed) => Err(Rejection::Unchanged),
        (Command::Push(pushed), _) => Ok(ImageEvent::Pushed(pushed.clone())),
        (Command::Remove(_), None) => Err(Rejection::Absent),
        (Command::Remove(removed), Some(_)) => Ok(ImageEvent::Removed(removed.clone())),
    }
}

impl Entry {
    /// What the last event of a name leaves of it.
    #[must_use]
    pub fn of(last: Recorded) -> Option<Self> {
        match last.envelope.event {
            ImageEvent::Pushed(pushed) => Some(Self {
                name: last.name,
                pushed,
                at: last.envelope.time,
            }),
            ImageEvent::Removed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_tag_and_is_one_token() {
        for (text, name, token) in [
            ("python:3.11-slim", "python:3.11-slim", "python:3=11-slim"),
            ("lab.example:5000/py", "lab.example:5000/py:latest", "lab=example:5000/py:latest"),
        ] {
            let parsed: ImageName = text.parse().expect(text);
            assert_eq!((parsed.as_str(), parsed.token().as_str()), (name, token));
            assert_eq!(ImageName::of_token(token), Some(parsed));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "a b", "-x", "a@sha256:00", "a:", "a:b:c", "a=b", "../x", "/x", "a*", "x/"] {
            assert!(text.parse::<ImageName>().is_err(), "{text:?}");
        }
    }
}
