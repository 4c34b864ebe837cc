//! Problems: what went wrong, as RFC 9457 documents with a sentence that says what to do.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bus::{
    ids::Digest,
    log::{append, read, writer},
    spec::submission::Refusal,
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::fill;

/// What a problem document is sent as.
pub const MEDIA_TYPE: &str = "application/problem+json";

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
pub(crate) enum Kind {
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
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The request cannot be read"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "The key is missing or wrong"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::Gone => ("gone", StatusCode::GONE, "This is no longer kept"),
            Self::Method => ("method", StatusCode::METHOD_NOT_ALLOWED, "This method cannot be used here"),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "This contradicts what is there"),
            Self::LengthRequired => ("length-required", StatusCode::LENGTH_REQUIRED, "The length must be said"),
            Self::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "This is too large"),
            Self::Range => ("range", StatusCode::RANGE_NOT_SATISFIABLE, "There is no such range"),
            Self::Refused => ("refused", StatusCode::UNPROCESSABLE_ENTITY, "This cannot be"),
            Self::MissingInputs => ("missing-inputs", StatusCode::UNPROCESSABLE_ENTITY, "Inputs are not in the store"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "A part of the grid is away"),
            Self::Full => ("full", StatusCode::INSUFFICIENT_STORAGE, "The log is full"),
            Self::Unreadable => ("unreadable", StatusCode::NOT_IMPLEMENTED, "This rgrid cannot read it"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong in the API"),
        }
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (tag, status, title) = kind.parts();
        Self {
            r#type: format!("urn:rgrid:problem:{tag}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            missing: Vec::new(),
        }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    pub(crate) fn missing(missing: Vec<Digest>) -> Self {
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

    /// A part of the grid does not answer: said with the whole chain of causes, and logged.
    pub(crate) fn unavailable(tried: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let detail = format!("{tried}: {}; try again in a moment", chain(error));
        warn!("{detail}");
        Self::new(Kind::Unavailable, detail)
    }
}

/// An error and its causes as one sentence, none said twice.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(Kind::Refused, refusal.0)
    }
}

impl From<append::Error> for Problem {
    fn from(error: append::Error) -> Self {
        match &error {
            append::Error::Full { .. } => Self::new(Kind::Full, chain(&error)),
            append::Error::Conflict { .. } => Self::new(Kind::Conflict, "others keep changing the job at this moment; try again"),
            append::Error::Unacknowledged { .. } | append::Error::Uncommitted { .. } => {
                Self::unavailable("the event may be stored or not", &error)
            }
        }
    }
}

impl From<writer::Error> for Problem {
    fn from(error: writer::Error) -> Self {
        match error {
            writer::Error::Read(error) => error.into(),
            writer::Error::Append(error) => error.into(),
            writer::Error::NoRoom { fill, bytes } => fill::refusal(fill, bytes),
            contended @ writer::Error::Contended { .. } => Self::new(Kind::Conflict, contended.to_string()),
        }
    }
}

impl From<read::Error> for Problem {
    fn from(error: read::Error) -> Self {
        match &error {
            read::Error::Read { .. } | read::Error::Stream { .. } | read::Error::Silent { .. } => {
                Self::unavailable("the log cannot be read", &error)
            }
            read::Error::Decode { .. } => Self::new(Kind::Unreadable, chain(&error)),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}
