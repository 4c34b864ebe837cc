//! Errors of requests, answered as problem documents.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bus::{
    ids::Digest,
    log::{
        EVENTS, append, read,
        room::{Addition, Fill},
        writer,
    },
    spec::submission::Refusal,
};
use model::{Kind, PROBLEM_MEDIA_TYPE, Problem};
use serde::Serialize;
use tracing::warn;

/// Why a request was refused or could not be carried out: the problem document that answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct ApiError(pub(crate) Problem);

impl std::ops::Deref for ApiError {
    type Target = Problem;

    fn deref(&self) -> &Problem {
        &self.0
    }
}

impl ApiError {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Problem::new(kind, detail))
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    pub(crate) fn missing(missing: Vec<Digest>) -> Self {
        Self(Problem::missing(missing))
    }

    /// The log does not admit `bytes` more of new jobs.
    pub(crate) fn full(Fill { used, max }: Fill, bytes: u64) -> Self {
        let percent = Addition::Jobs.hundredths();
        let detail = format!(
            "the log {EVENTS} holds {used} of its {max} bytes, and this request adds {bytes}; above {percent} % no new jobs are accepted, so \
             that running jobs can end; raise its bound: `rgrid log --bound …`"
        );
        Self::new(Kind::Full, detail)
    }

    /// A part of the grid does not answer. The detail holds the chain of causes; it is also logged.
    pub(crate) fn unavailable(tried: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let detail = format!("{tried}: {}; try again in a moment", chain(error));
        warn!("{detail}");
        Self::new(Kind::Unavailable, detail)
    }
}

/// An error and its causes as one sentence, without repetitions.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text_of_cause = cause.to_string();
        if !text.contains(&text_of_cause) {
            text.push_str(": ");
            text.push_str(&text_of_cause);
        }
        next = cause.source();
    }
    text
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.into())
    }
}

impl From<append::Error> for ApiError {
    fn from(error: append::Error) -> Self {
        match &error {
            append::Error::Full { .. } => Self::new(Kind::Full, chain(&error)),
            append::Error::Conflict { .. } => Self::new(Kind::Conflict, "the job is being changed by other requests; try again"),
            append::Error::Unacknowledged { .. } | append::Error::Uncommitted { .. } => {
                Self::unavailable("it is not known whether the event was stored", &error)
            }
        }
    }
}

impl From<writer::Error> for ApiError {
    fn from(error: writer::Error) -> Self {
        match error {
            writer::Error::Read(error) => error.into(),
            writer::Error::Append(error) => error.into(),
            writer::Error::NoRoom { fill, bytes } => Self::full(fill, bytes),
            contended @ writer::Error::Contended { .. } => Self::new(Kind::Conflict, contended.to_string()),
        }
    }
}

impl From<read::Error> for ApiError {
    fn from(error: read::Error) -> Self {
        match &error {
            read::Error::Read { .. } | read::Error::Stream { .. } | read::Error::Silent { .. } => {
                Self::unavailable("cannot read the log", &error)
            }
            read::Error::Decode { .. } => Self::new(Kind::Unreadable, chain(&error)),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        response
    }
}
