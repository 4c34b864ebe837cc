//! `GET /v1/workers`, `GET /v1/projection`, `GET /v1/health`: the state of the grid.

use async_nats::connection::State as Connection;
use axum::{Json, extract::State, http::StatusCode};
use bus::log::EVENTS;
use model::{Health, Projection, Workers};

use crate::{app::Shared, error::ApiError, http::extract::Query, jobs::caught_up};

/// `GET /v1/workers?min_sequence=`
pub(crate) async fn list(State(app): State<Shared>, query: Query) -> Result<Json<Workers>, ApiError> {
    caught_up(&app, query.min_sequence_only()?).await?;
    let workers = app.tables.workers().await?;
    app.advice.note(&workers);
    Ok(Json(Workers { workers }))
}

/// `GET /v1/projection`
pub(crate) async fn projection(State(app): State<Shared>, query: Query) -> Result<Json<Projection>, ApiError> {
    query.none()?;
    let stream = app.bus.js.get_stream(EVENTS).await;
    let stream = stream.map_err(|error| ApiError::unavailable("cannot read the end of the log", &error))?;
    let last = stream.cached_info().state.last_sequence;
    // Read after the log, so that both are not equal before the tables have caught up.
    let sequence = app.tables.sequence().await?;
    Ok(Json(Projection { sequence, last }))
}

/// `GET /v1/health`: without a key, so that a load balancer can ask.
pub(crate) async fn health(State(app): State<Shared>) -> (StatusCode, Json<Health>) {
    let nats = app.bus.client.connection_state() == Connection::Connected;
    let health = Health {
        status: if nats { "ok" } else { "nats is away" }.to_owned(),
        nats,
        postgres: app.tables.is_available().await,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let status = if nats { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health))
}
