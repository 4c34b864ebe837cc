//! `GET /v1/runtimes`: the runtimes that the deployment defines, and those that its workers have.

use axum::{Json, extract::State};
use model::{Runtimes, RuntimesOfWorkers};

use crate::{app::Shared, error::ApiError, http::extract::Query, jobs::caught_up};

mod file;
mod publish;

pub use self::file::{TEMPLATE, Wrong, read};
pub(crate) use self::publish::{follow, load};

/// `GET /v1/runtimes`: does not need Postgres.
pub(crate) async fn deployed(State(app): State<Shared>, query: Query) -> Result<Json<Runtimes>, ApiError> {
    query.none()?;
    let set = app.deployed.borrow().as_ref().clone();
    Ok(Json(Runtimes {
        runtimes: set.runtimes,
        aliases: set.aliases,
    }))
}

/// `GET /v1/runtimes/workers?min_sequence=`
pub(crate) async fn of_workers(State(app): State<Shared>, query: Query) -> Result<Json<RuntimesOfWorkers>, ApiError> {
    caught_up(&app, query.min_sequence_only()?).await?;
    let workers = app.tables.equipment().await?;
    Ok(Json(RuntimesOfWorkers { workers }))
}
