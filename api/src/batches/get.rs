//! `GET /v1/batches…`: from the tables.

use axum::{Json, extract::State};
use model::{BatchList, BatchView, Members};

use super::{batch_id, unknown};
use crate::{
    app::Shared,
    error::ApiError,
    http::extract::{Path, Query, namespace, parameter},
    jobs::caught_up,
    queries::{BatchFilter, MemberFilter},
};

/// The most batches or members on a page.
const MAX_LIMIT: i64 = 1_000;

/// `GET /v1/batches?namespace=&limit=50&before=<cursor>&min_sequence=`
pub(crate) async fn list(State(app): State<Shared>, query: Query) -> Result<Json<BatchList>, ApiError> {
    let (filter, min_sequence) = parse(query)?;
    caught_up(&app, min_sequence).await?;
    let (batches, next) = app.tables.batches(&filter).await?;
    Ok(Json(BatchList { batches, next }))
}

/// `GET /v1/batches/{id}?namespace=&min_sequence=`
pub(crate) async fn get(State(app): State<Shared>, Path(id): Path<String>, query: Query) -> Result<Json<BatchView>, ApiError> {
    let id = batch_id(&id)?;
    let (mut filter, min_sequence) = parse(query)?;
    // The log has the batch before the tables do.
    let batch = super::find(&app, id).await?;
    filter.namespace = batch.namespace;
    filter.id = Some(id);
    caught_up(&app, min_sequence.max(batch.first_sequence)).await?;
    let (batches, _) = app.tables.batches(&filter).await?;
    batches.into_iter().next().map(Json).ok_or_else(|| unknown(id))
}

/// `GET /v1/batches/{id}/jobs?state=&limit=100&after=<index>&min_sequence=`
pub(crate) async fn members(State(app): State<Shared>, Path(id): Path<String>, query: Query) -> Result<Json<Members>, ApiError> {
    let mut filter = MemberFilter {
        batch: batch_id(&id)?,
        states: Vec::new(),
        limit: 100,
        after: None,
    };
    let mut min_sequence = 0;
    query.each(|name, value| {
        match name {
            "state" => {
                for state in value.split(',').filter(|state| !state.is_empty()) {
                    filter.states.push(parameter(name, state)?);
                }
            }
            "limit" => filter.limit = limit(&value)?,
            "after" => filter.after = Some(parameter(name, &value)?),
            "min_sequence" => min_sequence = parameter(name, &value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    caught_up(&app, min_sequence).await?;
    let (members, next) = app.tables.members(&filter).await?;
    Ok(Json(Members { members, next }))
}

fn parse(query: Query) -> Result<(BatchFilter, u64), ApiError> {
    let mut filter = BatchFilter {
        namespace: bus::ids::default_token(),
        id: None,
        limit: 50,
        before: None,
    };
    let mut min_sequence = 0;
    query.each(|name, value| {
        match name {
            "namespace" => filter.namespace = namespace(&value)?,
            "limit" => filter.limit = limit(&value)?,
            "before" => filter.before = Some(parameter(name, &value)?),
            "min_sequence" => min_sequence = parameter(name, &value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((filter, min_sequence))
}

fn limit(value: &str) -> Result<i64, ApiError> {
    let limit = parameter("limit", value)?;
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(ApiError::malformed(format!("the parameter `limit` must be 1 to {MAX_LIMIT}")))
    }
}
