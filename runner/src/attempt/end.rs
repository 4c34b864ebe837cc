//! How an attempt ends.

use std::io;

use bus::job::{ManifestRef, Outcome, Usage};
use chrono::{DateTime, Utc};

use crate::{
    attempt::{deadline::Limit, outputs, registry::StopReason, secrets, stage, writer},
    errors::chain,
    executor::{self, Handle},
    log::spool,
    packages,
};

/// How a command ended.
pub(crate) struct CommandEnd {
    /// Its outcome.
    pub(crate) outcome: Outcome,
    /// What it used.
    pub(crate) usage: Usage,
}

/// Why an attempt has no result to commit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCommitted {
    /// An event of the attempt could not be appended.
    #[error(transparent)]
    Write(#[from] writer::Error),
    /// The attempt was stopped, and its result does not count.
    #[error("the attempt was stopped")]
    Stopped(StopReason),
    /// The attempt got no slot.
    #[error("there is no room for it")]
    NoRoom,
    /// The runner's shutdown ended the command.
    #[error("the runner's shutdown ended it")]
    Interrupted,
    /// The command is left running for the next runner.
    #[error("the attempt is left to the next runner")]
    Leaving(Leaving),
}

/// Why an attempt ended in an error of its surroundings, with the text that the user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error("cannot make a directory for the job: {0}; make room on the worker's disk")]
    Workspace(io::Error),
    #[error(transparent)]
    Stage(#[from] stage::Error),
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    #[error(transparent)]
    Executor(#[from] executor::Error),
    #[error(transparent)]
    Packages(packages::Error),
    #[error(transparent)]
    Log(#[from] spool::Error),
    #[error(transparent)]
    Output(#[from] outputs::Error),
    #[error("cannot store the list of outputs: {}", chain(.0))]
    Manifest(store::Error),
}

impl AttemptError {
    /// The outcome of the attempt.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::Error {
            message: self.to_string(),
            not_found: matches!(
                self,
                Self::Executor(executor::Error::NotFound(_)) | Self::Packages(packages::Error::Executor(executor::Error::NotFound(_)))
            ),
        }
    }
}

/// The result of an attempt, which is committed.
pub(crate) type Executed = Result<(CommandEnd, Option<ManifestRef>), AttemptError>;

/// Why an attempt is ended before its command has ended on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlyEnd {
    /// It passed a time limit.
    TimedOut(Limit),
    /// It was asked to stop.
    Stop(StopReason),
}

impl EarlyEnd {
    /// The result of an attempt that is ended before its command runs. The error means that nothing is committed.
    pub(crate) fn before_start(self) -> Result<CommandEnd, NotCommitted> {
        let outcome = match self {
            Self::TimedOut(limit) => limit.outcome(),
            Self::Stop(StopReason::Cancel) => Outcome::Cancelled,
            Self::Stop(StopReason::Leave) => return Err(NotCommitted::Interrupted),
            Self::Stop(stop) => return Err(NotCommitted::Stopped(stop)),
        };
        Ok(CommandEnd {
            outcome,
            usage: Usage::default(),
        })
    }
}

/// A command that is left running for the next runner.
pub(crate) struct Leaving {
    /// The command.
    pub(crate) handle: Box<dyn Handle>,
    /// When it began.
    pub(crate) begun: DateTime<Utc>,
}

impl std::fmt::Debug for Leaving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaving").field("begun", &self.begun).finish_non_exhaustive()
    }
}
