//! The catalogue of images that the grid stores: from an image's name to its archive in the store.

use std::{borrow::Cow, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Envelope, Event, data},
    ids::{Digest, ParseError},
};

/// The name of an image, with its tag: `rgrid/python:3.11`. The default tag is `latest`.
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

    /// The name as one token of a subject. A `.` would separate tokens, so it is written as `=`, which no name contains.
    pub(crate) fn token(&self) -> String {
        self.0.replace('.', "=")
    }

    /// The name that a token was made from.
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

/// The events of an image. On `rgrid.evt.sys.image.<name>`, where a `.` in the name is written as `=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ImageEvent {
    /// The grid stores this archive under the name.
    Pushed(ImagePushed),
    /// The grid no longer stores an image under the name.
    Removed(ImageRemoved),
}

/// `image.pushed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImagePushed {
    /// The SHA-256 of the image's archive in the store: the output of `docker save`, compressed with zstd.
    pub archive: Digest,
    /// The size of the archive in bytes.
    pub archive_bytes: u64,
    /// Docker's own id of the image (`sha256:…`) on the machine that pushed it.
    pub id: String,
    /// The size of the image in Docker, in bytes.
    pub size: u64,
    /// The platform of the image: `linux/amd64`.
    pub platform: String,
    /// Who pushed the image, as given by the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `image.removed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ImageRemoved {
    /// Who removed the image, as given by the client.
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

/// An event of an image, as it was read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The image's name, from the subject.
    pub name: ImageName,
    /// The event's sequence in the stream `RGRID_EVENTS`.
    pub sequence: u64,
    /// The event with its envelope.
    pub envelope: Envelope<ImageEvent>,
}

/// An image in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The image's name.
    pub name: ImageName,
    /// The archive, and what is known of the image.
    pub pushed: ImagePushed,
    /// When the image was pushed.
    pub at: DateTime<Utc>,
}

/// A command for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Store this archive under the name.
    Push(ImagePushed),
    /// Remove the image.
    Remove(ImageRemoved),
}

/// Why `decide` rejected a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The image does not exist.
    #[error("there is no such image")]
    Absent,
    /// The same image is stored under the name, no matter who pushed it.
    #[error("the grid already stores this image")]
    Unchanged,
}

/// Decides which event a command leads to.
///
/// # Errors
/// A [`Rejection`] if the command would change nothing.
pub fn decide(entry: Option<&Entry>, command: &Command) -> Result<ImageEvent, Rejection> {
    let without_pusher = |pushed: &ImagePushed| ImagePushed {
        by: None,
        ..pushed.clone()
    };
    match (command, entry) {
        (Command::Push(pushed), Some(now)) if without_pusher(pushed) == without_pusher(&now.pushed) => Err(Rejection::Unchanged),
        (Command::Push(pushed), _) => Ok(ImageEvent::Pushed(pushed.clone())),
        (Command::Remove(_), None) => Err(Rejection::Absent),
        (Command::Remove(removed), Some(_)) => Ok(ImageEvent::Removed(removed.clone())),
    }
}

impl Entry {
    /// The image after the last event of its name; `None` if the image was removed.
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
    fn an_invalid_name_is_refused() {
        for text in ["", "a b", "-x", "a@sha256:00", "a:", "a:b:c", "a=b", "../x", "/x", "a*", "x/"] {
            assert!(text.parse::<ImageName>().is_err(), "{text:?}");
        }
    }
}
