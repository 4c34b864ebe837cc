//! Batches over HTTP: handing them in, looking at them, ending them, trying them again.

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

/// A batch as the log tells it.
pub(crate) async fn find(app: &App, id: BatchId) -> Result<Batch, ApiError> {
    read::batch(&app.bus.js, id).await?.ok_or_else(|| unknown(id))
}

/// The problem of asking for a batch that is not there.
fn unknown(id: BatchId) -> ApiError {
    ApiError::not_found(format!(
        "there is no batch {id}; `rgrid list --batches` shows the batches, and `rgrid run -d --batch …` prints the id of a new one"
    ))
}

/// A batch's id in a path.
fn batch_id(text: &str) -> Result<BatchId, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(error.to_string()))
}
