//! What can go wrong between us and the API.

use model::{Kind, Problem};
use reqwest::StatusCode;

/// What can go wrong between us and the API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API says no, and why.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// Nobody answers, or the connection broke.
    #[error(
        "cannot reach the grid at {url}: {}; is it up (`rgrid status`), and is the address right (--url, RGRID_URL)?{}",
        root(.cause),
        if *.indeterminate { " The request may have been carried out, although no answer arrived." } else { "" }
    )]
    Unreachable {
        /// Where we tried.
        url: String,
        /// What happened. Not a source: of its many layers only the innermost says something, and stands in the sentence.
        cause: reqwest::Error,
        /// Whether the request was sent and may have changed something.
        indeterminate: bool,
    },
    /// The connection stands, and nothing comes.
    #[error(
        "the grid at {url} does not answer, although it accepts connections: it may be overloaded or stopped; see `rgrid doctor`, and run the same command again.{}",
        if *.indeterminate { " The request may have been carried out, although no answer arrived." } else { "" }
    )]
    Silent {
        /// Who.
        url: String,
        /// Whether the request was sent and may have changed something.
        indeterminate: bool,
    },
    /// The answer is longer than any that makes sense.
    #[error(
        "the answer of {url} is longer than {most} bytes, and was not read completely; check --url or RGRID_URL, or ask for less (--limit)"
    )]
    TooLong {
        /// Who.
        url: String,
        /// The bound, in bytes.
        most: usize,
    },
    /// Something else answers there.
    #[error("what answers at {url} is not a grid (HTTP status {}); check --url or RGRID_URL", .status.as_u16())]
    NotRgrid {
        /// Where we tried.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The answer is not of the shape that it should be.
    #[error("the answer of {url} (HTTP status {status}) is not what this version of rgrid expects; are both of the same version?")]
    Answer {
        /// Where it came from.
        url: String,
        /// Its status.
        status: u16,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up HTTPS; are the machine's certificates installed (package ca-certificates)?")]
    Setup(#[source] reqwest::Error),
}

impl Error {
    /// Whether it is worth trying again: the connection broke, or the API or a part behind it is away for a while.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            // A full log, and what this version cannot read, stay as they are.
            Self::Problem(problem) => matches!(problem.handled_as(), Kind::Unavailable | Kind::Internal),
            Self::NotRgrid { status, .. } => status.is_server_error(),
            Self::Answer { .. } | Self::TooLong { .. } | Self::Setup(_) => false,
        }
    }

    /// Whether the request may have been carried out although no answer came.
    pub const fn is_indeterminate(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { indeterminate: true, .. } | Self::Silent { indeterminate: true, .. }
        )
    }

    /// Whether what was asked for can never be granted as it was written.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Problem(problem) if matches!(
                problem.handled_as(),
                Kind::Malformed | Kind::Conflict | Kind::TooLarge | Kind::Refused | Kind::MissingInputs
            )
        )
    }
}

/// The innermost cause, without the operating system's number for it.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().chain(letters).collect())
        .unwrap_or_default()
}
