//! What should happen to a batch.

use super::{Batch, BatchAdvanced, BatchCancelled, BatchEvent, BatchSealed, BatchStopped, BatchSubmitted, Phase};

/// What somebody wants of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begin it.
    Submit(BatchSubmitted),
    /// Say that all of its members are in the log.
    Seal,
    /// Give slots of its window to members.
    Advance {
        /// Their places.
        released: Vec<u32>,
    },
    /// Let no further member start.
    Stop {
        /// How many have failed.
        failures: u32,
    },
    /// End it.
    Cancel {
        /// What the user said of it.
        reason: Option<String>,
    },
}

/// Why a command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such batch.
    #[error("there is no such batch")]
    Absent,
    /// It was submitted before, as the same.
    #[error("the batch exists already")]
    Exists,
    /// It was submitted before, as something else.
    #[error("the batch's id was used before, for a batch that is not the same; choose another id, or send the same batch")]
    Different,
    /// Its members are not all in the log.
    #[error("the batch is not submitted as a whole; submit it again to complete it")]
    NotSealed,
    /// Its members are all in the log.
    #[error("the batch is submitted as a whole already")]
    Sealed,
    /// No further member of it may start.
    #[error("the batch was stopped or cancelled already")]
    Over,
    /// It has no window.
    #[error("the batch does not limit how many of its members run at once")]
    NoWindow,
}

/// Says what event a command comes to, for a batch as it stands; nothing where it does not exist yet.
///
/// # Errors
/// A [`Rejection`] where the command changes nothing.
pub fn decide(batch: Option<&Batch>, command: Command) -> Result<BatchEvent, Rejection> {
    let Some(batch) = batch else {
        return match command {
            Command::Submit(submitted) => Ok(BatchEvent::Submitted(submitted)),
            _ => Err(Rejection::Absent),
        };
    };
    match (command, &batch.phase) {
        (Command::Submit(again), _) if again == batch.submitted => Err(Rejection::Exists),
        (Command::Submit(_), _) => Err(Rejection::Different),
        (_, Phase::Cancelled { .. }) => Err(Rejection::Over),
        (Command::Cancel { reason }, _) => Ok(BatchEvent::Cancelled(BatchCancelled { reason })),
        (_, Phase::Stopped) => Err(Rejection::Over),
        (Command::Seal, Phase::Submitting) => Ok(BatchEvent::Sealed(BatchSealed {})),
        (Command::Seal, Phase::Sealed) => Err(Rejection::Sealed),
        (Command::Advance { .. } | Command::Stop { .. }, Phase::Submitting) => Err(Rejection::NotSealed),
        (Command::Advance { .. }, Phase::Sealed) if batch.submitted.parallel.is_none() => Err(Rejection::NoWindow),
        (Command::Advance { released }, Phase::Sealed) => Ok(BatchEvent::Advanced(BatchAdvanced { released })),
        (Command::Stop { failures }, Phase::Sealed) => Ok(BatchEvent::Stopped(BatchStopped { failures })),
    }
}
