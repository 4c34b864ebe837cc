//! `POST /v1/batches`

use std::collections::HashSet;

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    batch::{BatchSubmitted, MAX_MEMBERS},
    ids::{Digest, Namespace},
    spec::{
        JobSpec,
        submission::{Refusal, Submission},
    },
};
use model::{BatchAnswer, BatchSubmission, Kind, MemberSubmission};

use super::{
    members::{Members, NewMembers, check_bytes},
    store::{NewBatch, store},
};
use crate::{
    admission::admit,
    app::{App, Shared},
    error::ApiError,
    http::extract::{Query, WholeBody, json},
    jobs::{InputCheck, check_references, store_inline},
};

/// The longest name of a batch or of a member, in bytes.
const MAX_NAME_BYTES: usize = 4_096;

/// `POST /v1/batches?namespace=`: 201 for a new batch, 200 for one that exists.
pub(crate) async fn submit(
    State(app): State<Shared>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<BatchAnswer>), ApiError> {
    let namespace = query.namespace_only()?;
    let submission: BatchSubmission = json("the batch", &body)?;
    let new = Box::pin(accept(&app, namespace, submission, &body)).await?;
    let answer = Box::pin(store(&app, new)).await?;
    let status = if answer.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(answer)))
}

/// Checks a batch, and that the inputs of its members are in the store.
async fn accept(app: &App, namespace: Namespace, submission: BatchSubmission, body: &[u8]) -> Result<NewBatch, ApiError> {
    check(&submission)?;
    let submitted = BatchSubmitted {
        name: submission.name.clone(),
        total: total(&submission),
        parallel: submission.parallel,
        max_failures: submission.max_failures,
        fail_fast: submission.fail_fast,
        retry_of: None,
        sha256: Digest::of(body),
    };
    let id = submission.id;
    let members = members_of(app, submission).await?;
    let (bytes, first) = check_members(app, &members, submitted.total).await?;
    if let Some(first) = first {
        check_references(app, &namespace, &first).await?;
    }
    let room = admit(&app.admission, u64::from(submitted.total), bytes).await?;
    Ok(NewBatch {
        id,
        namespace,
        submitted,
        members,
        room,
    })
}

/// Checks every member, one page at a time, and the size of all of them; returns that size in bytes, and the first member.
pub(super) async fn check_members(app: &App, members: &Members, total: u32) -> Result<(u64, Option<JobSpec>), ApiError> {
    let (mut reader, mut inputs) = (members.read(), InputCheck::new(&app.files, HashSet::new()));
    let (mut sum, mut first) = (0, None);
    loop {
        let (specs, bytes) = reader.page().await?;
        if specs.is_empty() {
            return Ok((sum, first));
        }
        sum += bytes;
        check_bytes(sum, total)?;
        inputs.add(&specs).await?;
        if let Some(problem) = specs.iter().find_map(|spec| inputs.found().first_of(spec)) {
            return Err(problem);
        }
        first = first.or_else(|| specs.into_iter().next());
    }
}

/// The members that a batch with this submission has.
pub(super) async fn members(app: &App, submission: BatchSubmission) -> Result<Members, ApiError> {
    check(&submission)?;
    members_of(app, submission).await
}

async fn members_of(app: &App, submission: BatchSubmission) -> Result<Members, ApiError> {
    let total = total(&submission);
    let shared = store_shared_files(app, submission.job, submission.members.first()).await?;
    // If what they share is already too large, no member is built.
    let each = serde_json::to_vec(&shared).map_or(0, |bytes| bytes.len() as u64);
    check_bytes(each * u64::from(total), total)?;
    Ok(Members::New(Box::new(NewMembers {
        batch: submission.id,
        shared,
        own: submission.members,
        deployed: app.deployed.borrow().clone(),
        window: submission.parallel.is_some(),
    })))
}

fn total(submission: &BatchSubmission) -> u32 {
    u32::try_from(submission.members.len()).unwrap_or(u32::MAX)
}

/// What all members share, after its inline files were stored.
async fn store_shared_files(app: &App, mut job: Submission, first: Option<&MemberSubmission>) -> Result<Submission, ApiError> {
    let files = std::mem::take(&mut job.files);
    if files.is_empty() {
        return Ok(job);
    }
    let command = first.map(|member| member.command.clone()).unwrap_or_default();
    let accepted = Submission {
        command: if job.command.is_empty() { command } else { job.command.clone() },
        files,
        ..job.clone()
    }
    .accept()?;
    store_inline(&app.files, &accepted.to_store).await?;
    job.inputs = accepted.spec.inputs;
    Ok(job)
}

fn check(batch: &BatchSubmission) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::from(Refusal(why)));
    let members = batch.members.len();
    if members == 0 {
        return refuse("`members` is empty; a batch needs at least one member".to_owned());
    }
    if members > MAX_MEMBERS as usize {
        let detail = format!("this batch has more than {MAX_MEMBERS} members; split it into several batches");
        return Err(ApiError::new(Kind::TooLarge, detail));
    }
    if batch.parallel == Some(0) {
        return refuse("`parallel` is 0, so that no member would ever run; set it to at least 1, or leave it out".to_owned());
    }
    if batch.max_failures == Some(0) {
        return refuse("`max_failures` is 0; set it to at least 1 (1: the first failure stops the batch)".to_owned());
    }
    if batch.fail_fast && batch.max_failures.is_none() {
        return refuse("`fail_fast` needs `max_failures`; add it".to_owned());
    }
    if batch.job.key.is_some() {
        return refuse(
            "`job.key` would make all members the same job; leave it out: the batch's `id` makes the submission idempotent".to_owned(),
        );
    }
    if batch.job.id.is_some() {
        return refuse(
            "`job.id` would make all members the same job; leave it out: the ids of members are derived from the batch's `id`".to_owned(),
        );
    }
    if batch.parallel.is_some() && batch.job.start.as_ref().is_some_and(|start| !start.is_empty()) {
        return refuse("`parallel` and `job.start` (a delay, a time, other jobs) cannot be combined; leave out one of them".to_owned());
    }
    let names = std::iter::once(&batch.name).chain(batch.members.iter().map(|member| &member.item));
    for name in names {
        if name.len() > MAX_NAME_BYTES || name.contains('\0') {
            return refuse(format!(
                "a name has {} bytes, or contains a NUL; it may have at most {MAX_NAME_BYTES} bytes and no NUL",
                name.len()
            ));
        }
    }
    Ok(())
}
