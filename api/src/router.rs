//! The endpoints of the API.

use std::any::Any;

use axum::{
    Router,
    extract::{DefaultBodyLimit, OriginalUri},
    http::Method,
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use model::Kind;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::error;

use crate::{
    app::Shared,
    auth, batches, doctor,
    error::ApiError,
    events::{follow, usage},
    files::{artifacts, uploads},
    http::extract::MAX_BODY_BYTES,
    images, jobs, logs, runtimes, secrets, storage,
    workers::{list, operator},
};

pub(crate) fn router(app: Shared) -> Router {
    let with_key = Router::new()
        .route("/v1/jobs", post(jobs::submit).get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::get))
        .route("/v1/jobs/{id}/history", get(jobs::history))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/requeue", post(jobs::requeue))
        .route("/v1/batches", post(batches::submit).get(batches::list))
        .route("/v1/batches/earlier", post(batches::earlier))
        .route("/v1/batches/{id}", get(batches::get))
        .route("/v1/batches/{id}/jobs", get(batches::members))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/batches/{id}/retry", post(batches::retry))
        .route("/v1/jobs/{id}/rerun", post(jobs::rerun))
        .route("/v1/requeue", post(jobs::requeue_many))
        .route("/v1/cancel", post(jobs::cancel_many))
        .route("/v1/jobs/{id}/logs", get(logs::logs))
        .route("/v1/jobs/{id}/artifacts", get(artifacts::list))
        .route("/v1/jobs/{id}/artifacts/{*path}", get(artifacts::get))
        .route("/v1/files/missing", post(uploads::missing))
        .route("/v1/files/{sha256}", get(uploads::get).put(uploads::put))
        .route("/v1/storage", get(storage::storage))
        .route("/v1/storage/gc", post(storage::gc))
        .route("/v1/log", get(usage::show))
        .route("/v1/log/bound", post(usage::set_bound))
        .route("/v1/secrets", get(secrets::list))
        .route("/v1/secrets/key", get(secrets::key))
        .route("/v1/secrets/{name}", put(secrets::set).delete(secrets::remove))
        .route("/v1/images", get(images::list))
        .route("/v1/images/{*name}", get(images::get).put(images::put).delete(images::remove))
        .route("/v1/runtimes", get(runtimes::deployed))
        .route("/v1/runtimes/workers", get(runtimes::of_workers))
        .route("/v1/workers", get(list::list))
        .route("/v1/workers/{id}/cordon", post(operator::cordon))
        .route("/v1/workers/{id}/drain", post(operator::drain))
        .route("/v1/workers/{id}/uncordon", post(operator::uncordon))
        .route("/v1/facts", get(follow::facts))
        .route("/v1/doctor", get(doctor::doctor))
        .route("/v1/projection", get(list::projection))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), auth::require));
    Router::new()
        .route("/v1/health", get(list::health))
        .method_not_allowed_fallback(wrong_method)
        .merge(with_key)
        .fallback(no_such_endpoint)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

async fn no_such_endpoint(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::not_found(format!("{method} {}: no such endpoint", uri.path()))
}

async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::new(
        Kind::Method,
        format!(
            "{method} is not allowed on {}; the header `Allow` lists the allowed methods",
            uri.path()
        ),
    )
}

#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    error!("a request panicked: {message}");
    ApiError::new(
        Kind::Internal,
        "the request failed because of a bug in rgrid; please report it with the log of the API",
    )
    .into_response()
}
