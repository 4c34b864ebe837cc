//! Commands of users for a batch: decided on its current state, and appended by the log's writer.

use bus::{
    batch::{Batch, Command, Rejection},
    ids::BatchId,
    log::writer::Outcome,
};

use crate::{app::App, error::ApiError};

/// Appends the event that a command leads to, and returns the batch after it; or the batch as it is, and why the command changes nothing.
pub(super) async fn apply_command(app: &App, id: BatchId, command: &Command) -> Result<(Batch, Option<Rejection>), ApiError> {
    match app.writer.write::<Batch>(&id, command).await? {
        Outcome::Appended(Some(batch), _) => Ok((batch, None)),
        Outcome::Rejected(Some(batch), _, rejection) => Ok((batch, Some(rejection))),
        Outcome::Appended(None, _) | Outcome::Rejected(None, ..) => Err(super::unknown(id)),
    }
}
