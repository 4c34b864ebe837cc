//! Batches over HTTP: submit, read, list, cancel, retry.

mod cancel;
mod command;
mod earlier;
mod get;
mod members;
mod retry;
mod store;
mod submit;

use bus::{batch::Batch, ids::BatchId, log::read};

pub(crate) use self::{
    cancel::cancel,
    earlier::of_batch as earlier,
    get::{get, list, members},
    retry::retry,
    submit::submit,
};
use crate::{app::App, error::ApiError};

/// Reads a batch from the log.
pub(crate) async fn find(app: &App, id: BatchId) -> Result<Batch, ApiError> {
    read::batch(&app.bus.js, id).await?.ok_or_else(|| unknown(id))
}

/// The problem of a batch that does not exist.
fn unknown(id: BatchId) -> ApiError {
    ApiError::not_found(format!(
        "batch {id} does not exist; `rgrid list --batches` shows the batches, and `rgrid run -d --batch …` prints the id of a new one"
    ))
}

/// A batch's id in a path.
fn batch_id(text: &str) -> Result<BatchId, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(error.to_string()))
}
