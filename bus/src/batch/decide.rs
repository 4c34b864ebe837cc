//! From a command to an event: what may happen to a batch.

use super::{Batch, BatchAdvanced, BatchCancelled, BatchEvent, BatchSealed, BatchStopped, BatchSubmitted, Phase};

/// A command for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Accept the batch.
    Submit(BatchSubmitted),
    /// Record that all members are in the log.
    Seal,
    /// Give slots of the batch's window to members.
    Advance {
        /// The members' indexes.
        released: Vec<u32>,
    },
    /// Let no further member start.
    Stop {
        /// How many members have failed.
        failures: u32,
    },
    /// Cancel the batch.
    Cancel {
        /// The reason that the user gave.
        reason: Option<String>,
    },
}

/// Why `decide` rejected a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The batch does not exist.
    #[error("there is no such batch")]
    Absent,
    /// The same batch was submitted before.
    #[error("the batch already exists")]
    Exists,
    /// A different batch was submitted before under the same id.
    #[error("this batch id was already used for a different batch; choose another id, or send the same batch")]
    Different,
    /// Not all members are in the log yet.
    #[error("the batch is not completely submitted; submit it again to complete it")]
    NotSealed,
    /// All members are in the log.
    #[error("the batch is already completely submitted")]
    Sealed,
    /// The batch was stopped or cancelled.
    #[error("the batch was already stopped or cancelled")]
    Over,
    /// The batch has no limit on how many members run at once.
    #[error("the batch does not limit how many of its members run at once")]
    NoWindow,
}

/// Decides which event a command leads to, given the batch's state (`None` if the batch does not exist yet).
///
/// # Errors
/// A [`Rejection`] if the command is not allowed or would change nothing.
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
