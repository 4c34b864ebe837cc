//! `GET /v1/storage`, `POST /v1/storage/gc`

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use chrono::Utc;
use serde::Deserialize;

use super::{
    Error, Storing,
    pass::{Grounds, millis},
    survey::survey,
    top::top,
};
use crate::{
    app::{App, Shared},
    error::{Kind, Problem, chain},
    extract::{Query, Whole, json},
    view::{GcReport, HeldBy, Kept, StorageView},
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

/// `GET /v1/storage`: everything is looked at, which may take a while.
pub(crate) async fn storage(State(app): State<Shared>, query: Query) -> Result<Json<StorageView>, Problem> {
    query.none()?;
    Ok(Json(Box::pin(view(&app)).await?))
}

async fn view(app: &App) -> Result<StorageView, Problem> {
    let storing = app.storing;
    let grounds = grounds(app, storing);
    let now = Utc::now();
    let seen = grounds.seen().await?;
    let found = survey(&app.bus.js, &app.files, storing.keeping, now, seen).await?;
    let limit = grounds.limit_at(&found, now);
    let (going, _) = grounds.going(&found, limit).await?;
    let last_pass = app.marks.last_pass::<GcReport>().await.map_err(Error::from)?;
    let (jobs, batches) = top(&found.left);
    Ok(StorageView {
        store: app.files.url().to_string(),
        all: found.all,
        uses: found.uses,
        other: found.other,
        going,
        jobs,
        batches,
        keeping: Kept {
            grace_ms: millis(storing.grace),
            inputs_ms: millis(storing.keeping.inputs),
            outputs_ms: storing.keeping.outputs.map(millis),
            packages_ms: millis(storing.keeping.packages),
            every_ms: storing.every.map(millis),
        },
        held_by: found.oldest_claim.map(|(job, claimed_at)| HeldBy { job, claimed_at }),
        last_pass: last_pass.map(|(report, _)| report),
    })
}

/// `POST /v1/storage/gc`, with `{"dry_run":…,"grace_ms":…,"keep_inputs_ms":…,"keep_packages_ms":…,"despite_lost":…}` or nothing: answered when the
/// pass is over. It goes on if nobody waits for it any more.
pub(crate) async fn gc(State(app): State<Shared>, query: Query, Whole(body): Whole) -> Result<Json<GcReport>, Problem> {
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
        .map_err(|error| Problem::new(Kind::Internal, format!("the pass did not end: {error}")))?;
    Ok(Json(report?))
}

pub(super) fn grounds(app: &App, storing: Storing) -> Grounds<'_> {
    Grounds {
        js: &app.bus.js,
        files: &app.files,
        marks: &app.marks,
        tables: &app.tables,
        storing,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Busy(_) => Self::new(Kind::Conflict, error.to_string()),
            Error::Gap(_) => Self::new(Kind::Conflict, chain(&error)),
            Error::List { .. } => Self::new(Kind::Internal, chain(&error)),
            Error::Log(_) | Error::Files(_) | Error::Overtaken => Self::unavailable("the storage cannot be looked at", &error),
        }
    }
}
