//! `GET /v1/storage`, `POST /v1/storage/gc`

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use chrono::Utc;
use model::{GcReport, Kind, StorageView};
use serde::Deserialize;

use super::{Error, Storing, pass::Grounds, reading::extent};
use crate::{
    app::{App, Shared},
    error::{ApiError, chain},
    http::extract::{Query, Whole, flag, json},
};

/// What is asked of a pass.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    /// Look, and remove nothing.
    dry_run: bool,
    /// Another grace, in milliseconds.
    grace_ms: Option<u64>,
    /// Another time for which the inputs of jobs that have ended are kept, in milliseconds.
    keep_inputs_ms: Option<u64>,
    /// Another time for which installed packages are kept after their last use, in milliseconds.
    keep_packages_ms: Option<u64>,
    /// Give up what lists of outputs named that are lost for good.
    despite_lost: bool,
}

/// `GET /v1/storage`: what was found when the store was looked at last. With `now=true`, or where nobody has looked, everything is looked
/// at, which may take a while, and goes on if nobody waits for it any more: the next who asks has the answer.
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
        .map_err(|error| ApiError::new(Kind::Internal, format!("the look did not end: {error}")))?;
    Ok(Json(view?))
}

async fn view(app: &App, now: bool) -> Result<StorageView, Error> {
    let (grounds, asked) = (grounds(app, app.storing), Utc::now());
    let seen = grounds.seen().await?;
    let (log, _) = extent(&app.bus.js, seen).await?;
    if !now && let Some(known) = grounds.known().await? {
        return grounds.answer(known, log.last).await;
    }
    let _alone = app.surveying.lock().await;
    // Who waited for another finds what that one found.
    if let Some(known) = grounds.known().await?.filter(|known| known.looked_at() > asked) {
        return grounds.answer(known, log.last).await;
    }
    let begun = Utc::now();
    let found = grounds.survey_alone(begun, seen).await?;
    let known = grounds.note(&found, begun).await?;
    grounds.answer(known, found.last).await
}

/// `POST /v1/storage/gc`, with `{"dry_run":…,"grace_ms":…,"keep_inputs_ms":…,"keep_packages_ms":…,"despite_lost":…}` or nothing: answered when the
/// pass is over. It goes on if nobody waits for it any more.
pub(crate) async fn gc(State(app): State<Shared>, query: Query, Whole(body): Whole) -> Result<Json<GcReport>, ApiError> {
    query.none()?;
    let asked: Asked = if body.is_empty() {
        Asked::default()
    } else {
        json("the request", &body)?
    };
    let mut storing = app.storing;
    if let Some(grace) = asked.grace_ms {
        storing.grace = Duration::from_millis(grace);
    }
    if let Some(inputs) = asked.keep_inputs_ms {
        storing.keeping.inputs = Duration::from_millis(inputs);
    }
    if let Some(packages) = asked.keep_packages_ms {
        storing.keeping.packages = Duration::from_millis(packages);
    }
    storing.keeping.despite_lost = asked.despite_lost;
    let own = Arc::clone(&app);
    let pass = app.tasks.spawn(async move {
        let grounds = grounds(&own, storing);
        if asked.dry_run {
            grounds.rehearse().await
        } else {
            grounds.pass().await
        }
    });
    let report = pass
        .await
        .map_err(|error| ApiError::new(Kind::Internal, format!("the pass did not end: {error}")))?;
    Ok(Json(report?))
}

pub(super) fn grounds(app: &App, storing: Storing) -> Grounds<'_> {
    Grounds {
        js: &app.bus.js,
        files: &app.files,
        marks: &app.marks,
        tables: &app.tables,
        key: app.key,
        surveying: &app.surveying,
        storing,
        usual: app.storing,
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Busy(_) => Self::new(Kind::Conflict, error.to_string()),
            Error::Incomplete(_) => Self::new(Kind::Conflict, chain(&error)),
            Error::List { .. } => Self::new(Kind::Internal, chain(&error)),
            Error::Log(_) | Error::Files(_) | Error::Cut(_) | Error::Overtaken => {
                Self::unavailable("the storage cannot be looked at", &error)
            }
        }
    }
}
