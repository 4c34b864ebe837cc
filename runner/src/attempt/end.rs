//! How an attempt ends.

use std::io;

use bus::job::{ManifestRef, Outcome, Usage};
use chrono::{DateTime, Utc};

use crate::{
    attempt::{deadline::Limit, outputs, registry::Stop, secrets, stage, writer},
    errors::chain,
    executor::{self, Handle},
    log::spool,
    packages,
};

/// How far the work on a command came.
pub(crate) struct Done {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What it used.
    pub(crate) usage: Usage,
}

/// Why an attempt ended without anything to commit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished {
    /// An event of it is not in the log.
    #[error(transparent)]
    Write(#[from] writer::Error),
    /// It is not to be committed.
    #[error("the attempt was stopped")]
    Stopped(Stop),
    /// There is no room for its command.
    #[error("there is no room for it")]
    NoRoom,
    /// The runner's own end was its command's too.
    #[error("the runner's shutdown ended it")]
    Interrupted,
    /// Its command is to go on without us.
    #[error("the attempt goes on without this runner")]
    Leaving(Leaving),
}

/// Why the attempt's end is an error of its surroundings, with the sentence that the user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("cannot make a directory for the job: {0}; make room on the worker's disk")]
    Place(io::Error),
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

impl Broken {
    /// How an attempt ends by it.
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

/// What an attempt comes to that is to be committed.
pub(crate) type Executed = Result<(Done, Option<ManifestRef>), Broken>;

/// Why a command was made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It took too long.
    Late(Limit),
    /// Somebody asked for it.
    Stop(Stop),
}

impl Cut {
    /// What an attempt comes to that is cut before its command runs. The error means that nothing is to be committed.
    pub(crate) fn before_start(self) -> Result<Done, Unfinished> {
        let outcome = match self {
            Self::Late(limit) => limit.outcome(),
            Self::Stop(Stop::Cancel) => Outcome::Cancelled,
            Self::Stop(Stop::Leave) => return Err(Unfinished::Interrupted),
            Self::Stop(stop) => return Err(Unfinished::Stopped(stop)),
        };
        Ok(Done {
            outcome,
            usage: Usage::default(),
        })
    }
}

/// A command that is to go on without us.
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
