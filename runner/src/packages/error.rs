//! Why a job's packages cannot be had.

use std::io;

use crate::{errors::chain, executor};

/// Why a job's packages cannot be had, with the sentence that the user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The installer failed, or cannot be run.
    #[error("{sentence}")]
    Failed {
        /// What failed, and what to do.
        sentence: String,
        /// The last that the installer said.
        output: Vec<u8>,
    },
    /// There is nothing to install for, or nothing to install with.
    #[error(transparent)]
    Executor(#[from] executor::Error),
    /// The store.
    #[error("cannot fetch what declares the job's packages, or the packages: {}", chain(.0))]
    Store(#[from] store::Error),
    /// What is stored is not what was packed.
    #[error("the stored packages cannot be unpacked: {0}")]
    Archive(String),
    /// The worker's disk.
    #[error("cannot keep the job's packages: {0}; make room on the worker's disk")]
    Disk(io::Error),
}

impl Error {
    /// The last that the installer said, to be shown to the user.
    pub(crate) fn output(&self) -> &[u8] {
        match self {
            Self::Failed { output, .. } => output,
            _ => &[],
        }
    }
}
