//! `GET /v1/jobs`: from the tables.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use model::JobList;

use crate::{
    app::{App, Shared},
    error::ApiError,
    http::extract::{Query, namespace, parameter},
    queries::Filter,
};

/// The most jobs on a page.
const MAX_LIMIT: i64 = 1_000;
/// How long a list waits for the tables to reach `min_sequence`.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// The pause between two looks at the tables.
const POLL_PAUSE: Duration = Duration::from_millis(10);

/// `GET /v1/jobs?state=&queue=&label=k=v&name=&worker=&namespace=&limit=50&before=<cursor>&min_sequence=`
pub(crate) async fn list(State(app): State<Shared>, query: Query) -> Result<Json<JobList>, ApiError> {
    let (filter, min_sequence) = parse(query)?;
    let projected = caught_up(&app, min_sequence).await?;
    let (jobs, next) = app.tables.jobs(&filter).await?;
    Ok(Json(JobList { jobs, next, projected }))
}

/// Parses the parameters: the filter, and the sequence that the tables must have reached.
pub(super) fn parse(query: Query) -> Result<(Filter, u64), ApiError> {
    let mut filter = Filter {
        namespace: bus::ids::default_token(),
        states: Vec::new(),
        queue: None,
        name: None,
        worker: None,
        labels: BTreeMap::new(),
        limit: 50,
        before: None,
    };
    let mut min_sequence = 0;
    query.each(|name, value| {
        match name {
            "state" => {
                for state in value.split(',').filter(|state| !state.is_empty()) {
                    filter.states.push(parameter(name, state)?);
                }
            }
            "queue" => filter.queue = Some(value),
            "name" => filter.name = Some(value),
            "worker" => filter.worker = Some(value),
            "namespace" => filter.namespace = namespace(&value)?,
            "label" => {
                let (label, value) = value
                    .split_once('=')
                    .ok_or_else(|| ApiError::malformed("the parameter `label` must have the form name=value"))?;
                filter.labels.insert(label.to_owned(), value.to_owned());
            }
            "limit" => {
                filter.limit = parameter(name, &value)?;
                if !(1..=MAX_LIMIT).contains(&filter.limit) {
                    return Err(ApiError::malformed(format!("the parameter `limit` must be 1 to {MAX_LIMIT}")));
                }
            }
            "before" => filter.before = Some(parameter(name, &value)?),
            "min_sequence" => min_sequence = parameter(name, &value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // A text column of Postgres cannot hold a NUL, so that no job has one.
    let texts = [&filter.queue, &filter.name, &filter.worker];
    let nul = |text: &String| text.contains('\0');
    if texts.into_iter().flatten().any(nul) || filter.labels.iter().any(|(name, value)| nul(name) || nul(value)) {
        return Err(ApiError::malformed("a parameter contains a NUL character; remove it"));
    }
    Ok((filter, min_sequence))
}

/// Waits until the tables have reached a sequence, for at most [`CATCH_UP_MAX`]; returns the sequence that they have reached.
pub(crate) async fn caught_up(app: &App, min_sequence: u64) -> Result<u64, ApiError> {
    let began = Instant::now();
    loop {
        let reached = app.tables.sequence().await?;
        if reached >= min_sequence || began.elapsed() >= CATCH_UP_MAX || app.stop.is_cancelled() {
            return Ok(reached);
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
}
