//! Problems: what went wrong, as RFC 9457 documents with a sentence that says what to do.

use std::{convert::Infallible, fmt, str::FromStr};

use bus::{ids::Digest, spec::Refusal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The media type of a problem document.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// What the `type` of every kind of problem begins with.
const PREFIX: &str = "urn:rgrid:problem:";

/// A problem document (RFC 9457), as it is answered over HTTP and to `Rgrid-Reply-To`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was tried, what is wrong, what to do.
    pub detail: String,
    /// Files that are not in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Digest>,
}

/// A kind of problem. On the wire it is the `type` of the document: `urn:rgrid:problem:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be parsed.
    Malformed,
    /// The API key is missing or wrong.
    Unauthorized,
    /// The job, the file or the endpoint does not exist.
    NotFound,
    /// It existed, and was removed since.
    Gone,
    /// The endpoint does not allow the method.
    Method,
    /// The request contradicts the current state, or an earlier request.
    Conflict,
    /// The request must say the length of its body.
    LengthRequired,
    /// The body, or a number in it, is above a limit.
    TooLarge,
    /// The content does not have the requested range.
    Range,
    /// The request can be parsed, and is invalid.
    Refused,
    /// The request names contents that are not in the store.
    MissingInputs,
    /// NATS, the store or Postgres does not answer.
    Unavailable,
    /// The log is full.
    Full,
    /// A newer version of rgrid wrote what is in the log.
    Unreadable,
    /// A bug in the API.
    Internal,
    /// A kind that this version does not know: its `type` as it came.
    Other(String),
}

impl Kind {
    /// Every kind that this version knows.
    const KNOWN: [Self; 15] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::NotFound,
        Self::Gone,
        Self::Method,
        Self::Conflict,
        Self::LengthRequired,
        Self::TooLarge,
        Self::Range,
        Self::Refused,
        Self::MissingInputs,
        Self::Unavailable,
        Self::Full,
        Self::Unreadable,
        Self::Internal,
    ];

    /// The end of its `type`, its HTTP status and its title.
    const fn parts(&self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Malformed => ("malformed", 400, "Malformed request"),
            Self::Unauthorized => ("unauthorized", 401, "Missing or wrong API key"),
            Self::NotFound => ("not-found", 404, "Not found"),
            Self::Gone => ("gone", 410, "No longer available"),
            Self::Method => ("method", 405, "Method not allowed"),
            Self::Conflict => ("conflict", 409, "Conflict with the current state"),
            Self::LengthRequired => ("length-required", 411, "Length required"),
            Self::TooLarge => ("too-large", 413, "Too large"),
            Self::Range => ("range", 416, "Range not satisfiable"),
            Self::Refused => ("refused", 422, "Invalid request"),
            Self::MissingInputs => ("missing-inputs", 422, "Missing inputs"),
            Self::Unavailable => ("unavailable", 503, "Service unavailable"),
            Self::Full => ("full", 507, "The log is full"),
            Self::Unreadable => ("unreadable", 501, "Written by a newer version"),
            Self::Internal | Self::Other(_) => ("internal", 500, "Internal error"),
        }
    }

    /// The kind that an HTTP status stands for, where the document's own kind is not known.
    fn of_status(status: u16) -> Option<Self> {
        let own = Self::KNOWN.into_iter().find(|kind| kind.parts().1 == status);
        own.or(match status {
            502 | 504 => Some(Self::Unavailable),
            500.. => Some(Self::Internal),
            _ => None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text) => f.write_str(text),
            known => write!(f, "{PREFIX}{}", known.parts().0),
        }
    }
}

impl FromStr for Kind {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let known = text
            .strip_prefix(PREFIX)
            .and_then(|tag| Self::KNOWN.into_iter().find(|kind| kind.parts().0 == tag));
        Ok(known.unwrap_or_else(|| Self::Other(text.to_owned())))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Problem {
    /// A problem of a kind, with the sentence that says what was tried, what is wrong and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (_, status, title) = kind.parts();
        Self {
            kind,
            title: title.to_owned(),
            status,
            detail: detail.into(),
            missing: Vec::new(),
        }
    }

    /// The kind to handle it as: its own, or, where this version does not know that, the kind that its HTTP status stands for.
    #[must_use]
    pub fn handled_as(&self) -> Kind {
        match &self.kind {
            Kind::Other(_) => Kind::of_status(self.status).unwrap_or_else(|| self.kind.clone()),
            known => known.clone(),
        }
    }

    /// The problem of inputs that are not in the store.
    #[must_use]
    pub fn missing(missing: Vec<Digest>) -> Self {
        let detail = match missing.as_slice() {
            [one] => format!("the input {one} is not in the store; upload it with PUT /v1/files/{one}, then submit again"),
            many => format!(
                "{} inputs are not in the store; upload each with PUT /v1/files/<sha256>, then submit again",
                many.len()
            ),
        };
        Self {
            missing,
            ..Self::new(Kind::MissingInputs, detail)
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(Kind::Refused, refusal.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_the_wire_and_an_unknown_one_is_handled_by_its_status() -> Result<(), serde_json::Error> {
        for kind in Kind::KNOWN {
            let problem = Problem::new(kind, "x");
            let text = serde_json::to_string(&problem)?;
            assert!(text.starts_with(r#"{"type":"urn:rgrid:problem:"#), "{text}");
            assert_eq!(serde_json::from_str::<Problem>(&text)?, problem);
        }
        for (status, kind) in [
            (404, Some(Kind::NotFound)),
            (418, None),
            (502, Some(Kind::Unavailable)),
            (505, Some(Kind::Internal)),
            (507, Some(Kind::Full)),
        ] {
            let text = format!(r#"{{"type":"about:blank","title":"t","status":{status},"detail":"d"}}"#);
            let problem: Problem = serde_json::from_str(&text)?;
            assert_eq!(serde_json::to_string(&problem)?, text);
            assert_eq!(problem.handled_as(), kind.unwrap_or(Kind::Other("about:blank".to_owned())));
        }
        Ok(())
    }
}
