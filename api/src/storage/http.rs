//! `GET /v1/storage`, `POST /v1/storage/gc`

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use chrono::Utc;
use model::{GcReport, Kind, StorageView};
use serde::Deserialize;

use super::{Error, StorageConfig, pass::StoragePass, reading::extent};
use crate::{
    app::{App, Shared},
    error::{ApiError, chain},
    http::extract::{Query, WholeBody, flag, json},
};

/// The options of a requested pass.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PassRequest {
    /// Report what a pass would do, and remove nothing.
    dry_run: bool,
    /// Another grace period, in milliseconds.
    grace_ms: Option<u64>,
    /// Another time for which the inputs of jobs that have ended are kept, in milliseconds.
    keep_inputs_ms: Option<u64>,
    /// Another time for which installed packages are kept after their last use, in milliseconds.
    keep_packages_ms: Option<u64>,
    /// Give up the outputs whose manifests are lost permanently.
    despite_lost: bool,
}

/// `GET /v1/storage`: the last survey of the store. With `now=true`, or if there is none, surveys the store, which may take a while, and goes
/// on if the client disconnects: the next request has the result.
pub(crate) async fn storage(State(app): State<Shared>, query: Query) -> Result<Json<StorageView>, ApiError> {
    let mut now = false;
    query.each(|name, value| {
        if name == "now" {
            now = flag(name, &value)?;
        }
        Ok(name == "now")
    })?;
    let own = Arc::clone(&app);
    let looking = app.tasks.spawn(async move { Box::pin(view(&own, now)).await });
    let view = looking
        .await
        .map_err(|error| ApiError::new(Kind::Internal, format!("the survey failed: {error}")))?;
    Ok(Json(view?))
}

async fn view(app: &App, now: bool) -> Result<StorageView, Error> {
    let (pass, requested_at) = (storage_pass(app, app.storage_config), Utc::now());
    let seen = pass.seen().await?;
    let (log, _) = extent(&app.bus.js, seen).await?;
    if !now && let Some(known) = pass.known().await? {
        return pass.answer(known, log.last).await;
    }
    let _alone = app.surveying.lock().await;
    // Another survey may have ended while this request waited for it.
    if let Some(known) = pass.known().await?.filter(|known| known.looked_at() > requested_at) {
        return pass.answer(known, log.last).await;
    }
    let begun = Utc::now();
    let found = pass.survey_alone(begun, seen).await?;
    let known = pass.note(&found, begun).await?;
    pass.answer(known, found.last).await
}

/// `POST /v1/storage/gc`, with `{"dry_run":…,"grace_ms":…,"keep_inputs_ms":…,"keep_packages_ms":…,"despite_lost":…}` or an empty
/// body: answered when the pass has ended. It goes on if the client disconnects.
pub(crate) async fn gc(State(app): State<Shared>, query: Query, WholeBody(body): WholeBody) -> Result<Json<GcReport>, ApiError> {
    query.none()?;
    let request: PassRequest = if body.is_empty() {
        PassRequest::default()
    } else {
        json("the request", &body)?
    };
    let mut storage_config = app.storage_config;
    if let Some(grace) = request.grace_ms {
        storage_config.grace = Duration::from_millis(grace);
    }
    if let Some(inputs) = request.keep_inputs_ms {
        storage_config.retention.inputs = Duration::from_millis(inputs);
    }
    if let Some(packages) = request.keep_packages_ms {
        storage_config.retention.packages = Duration::from_millis(packages);
    }
    storage_config.retention.despite_lost = request.despite_lost;
    let own = Arc::clone(&app);
    let pass = app.tasks.spawn(async move {
        let pass = storage_pass(&own, storage_config);
        if request.dry_run { pass.dry_run().await } else { pass.run().await }
    });
    let report = pass
        .await
        .map_err(|error| ApiError::new(Kind::Internal, format!("the storage pass failed: {error}")))?;
    Ok(Json(report?))
}

pub(super) fn storage_pass(app: &App, storage_config: StorageConfig) -> StoragePass<'_> {
    StoragePass {
        js: &app.bus.js,
        files: &app.files,
        marks: &app.marks,
        tables: &app.tables,
        key: app.key,
        surveying: &app.surveying,
        storage_config,
        usual: app.storage_config,
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Busy(_) => Self::new(Kind::Conflict, error.to_string()),
            Error::Gap(_) => Self::new(Kind::Conflict, chain(&error)),
            Error::List { .. } => Self::new(Kind::Internal, chain(&error)),
            Error::Log(_) | Error::Files(_) | Error::Cut(_) | Error::Overtaken => Self::unavailable("cannot survey the storage", &error),
        }
    }
}
