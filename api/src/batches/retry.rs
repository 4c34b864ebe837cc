//! `POST /v1/batches/{id}/retry`: the members of a batch again, as a new batch that is linked to it.

use std::collections::HashSet;

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    batch::{BatchMember, BatchSubmitted},
    ids::{BatchId, Digest, JobId},
};
use serde::Deserialize;

use super::{
    batch_id, find,
    store::{NewBatch, store},
};
use crate::{
    app::Shared,
    error::{Kind, Problem},
    extract::{Path, Query, Whole, json},
    jobs::{caught_up, check_inputs},
    queries::BatchFilter,
    view::BatchAnswer,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The new batch's identity: under the same one it is submitted once.
    id: BatchId,
    /// Only those members that did not end well.
    #[serde(default)]
    failed_only: bool,
    /// Look at tables that hold at least this event.
    #[serde(default)]
    min_sequence: u64,
}

/// `POST /v1/batches/{id}/retry`, with `{"id":…,"failed_only":true}`: new 201, there before 200. Only of a batch that has ended,
/// so that the same request always means the same members.
pub(crate) async fn retry(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<(StatusCode, Json<BatchAnswer>), Problem> {
    query.none()?;
    let of = batch_id(&id)?;
    let asked: Asked = json("the request", &body)?;
    let old = find(&app, of).await?;
    caught_up(&app, asked.min_sequence.max(old.sequence)).await?;
    let filter = BatchFilter {
        namespace: old.namespace.clone(),
        id: Some(of),
        limit: 1,
        before: None,
    };
    let (views, _) = app.tables.batches(&filter).await?;
    let view = views.first().ok_or_else(|| super::unknown(of))?;
    if !view.state.is_end() {
        let detail = format!(
            "batch {of} is {}, with {} of {} members ended; it can be tried again once it has ended",
            view.state.as_str(),
            view.ended(),
            view.total
        );
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let members = app.tables.member_specs(of, asked.failed_only).await?;
    if members.is_empty() {
        let detail = format!("all {} members of batch {of} succeeded; there is nothing to try again", view.total);
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let total = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let again = members.into_iter().zip(0..).map(|((job, mut spec), index)| {
        let item = spec.batch.take().map_or_else(|| index.to_string(), |member| member.item);
        spec.batch = Some(BatchMember {
            batch: asked.id,
            index,
            item,
            of: Some(JobId::from(job)),
        });
        spec
    });
    let specs = again.collect::<Vec<_>>();
    let bytes: u64 = specs
        .first()
        .and_then(|spec| serde_json::to_vec(spec).ok())
        .map_or(0, |spec| spec.len() as u64);
    app.fill.admit(u64::from(total), bytes * u64::from(total))?;
    let missing = check_inputs(&app.files, &specs, &HashSet::new()).await?;
    if let Some(problem) = specs.iter().find_map(|spec| missing.first_of(spec)) {
        return Err(problem);
    }
    let new = NewBatch {
        id: asked.id,
        namespace: old.namespace,
        submitted: BatchSubmitted {
            total,
            retry_of: Some(of),
            sha256: Digest::of(format!("{of} {}", asked.failed_only).as_bytes()),
            ..old.submitted
        },
        specs,
    };
    let answer = Box::pin(store(&app, new)).await?;
    let status = if answer.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(answer)))
}
