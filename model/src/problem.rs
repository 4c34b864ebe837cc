//! Problems: what went wrong, as RFC 9457 documents with a sentence that says what to do.

use bus::{ids::Digest, spec::Refusal};
use serde::{Deserialize, Serialize};

/// What a problem document is sent as.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// A problem document (RFC 9457), as it is answered over HTTP and to `Rgrid-Reply-To`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which kind of problem: `urn:rgrid:problem:…`.
    pub r#type: String,
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

/// Kinds of problems, each with its status and title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is not of the shape it must have.
    Malformed,
    /// The key is missing or wrong.
    Unauthorized,
    /// No such job, file or page.
    NotFound,
    /// It was there, and its time is over.
    Gone,
    /// The page is there, and takes other methods.
    Method,
    /// What is asked for cannot be any more, or contradicts what was said before.
    Conflict,
    /// The length must be said.
    LengthRequired,
    /// More than may be sent.
    TooLarge,
    /// A range that the content does not have.
    Range,
    /// The shape is right, and what it says cannot be.
    Refused,
    /// Named contents are not in the store.
    MissingInputs,
    /// NATS, the store or Postgres is away.
    Unavailable,
    /// The log is full.
    Full,
    /// What stands in the log, a newer rgrid wrote.
    Unreadable,
    /// A bug.
    Internal,
}

impl Kind {
    const fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Malformed => ("malformed", 400, "The request cannot be read"),
            Self::Unauthorized => ("unauthorized", 401, "The key is missing or wrong"),
            Self::NotFound => ("not-found", 404, "There is no such thing"),
            Self::Gone => ("gone", 410, "This is no longer kept"),
            Self::Method => ("method", 405, "This method cannot be used here"),
            Self::Conflict => ("conflict", 409, "This contradicts what is there"),
            Self::LengthRequired => ("length-required", 411, "The length must be said"),
            Self::TooLarge => ("too-large", 413, "This is too large"),
            Self::Range => ("range", 416, "There is no such range"),
            Self::Refused => ("refused", 422, "This cannot be"),
            Self::MissingInputs => ("missing-inputs", 422, "Inputs are not in the store"),
            Self::Unavailable => ("unavailable", 503, "A part of the grid is away"),
            Self::Full => ("full", 507, "The log is full"),
            Self::Unreadable => ("unreadable", 501, "This rgrid cannot read it"),
            Self::Internal => ("internal", 500, "Something went wrong in the API"),
        }
    }
}

impl Problem {
    /// A problem of a kind, with the sentence that says what was tried, what is wrong and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (tag, status, title) = kind.parts();
        Self {
            r#type: format!("urn:rgrid:problem:{tag}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            missing: Vec::new(),
        }
    }

    /// These contents are not in the store.
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
