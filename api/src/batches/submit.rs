//! `POST /v1/batches`

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    batch::{BatchMember, BatchSubmitted, MAX_MEMBERS},
    ids::{BatchId, Digest, Namespace},
    policy::Start,
    runtimes::RuntimesSet,
    spec::JobSpec,
    submission::{Refusal, Submission},
};

use super::store::{NewBatch, store};
use crate::{
    app::{App, Shared},
    error::{Kind, Problem},
    extract::{Query, Whole, json},
    jobs::{check_alone, check_inputs, store_inline},
    view::{BatchAnswer, BatchSubmission, MemberSubmission},
};

/// The longest name of a batch or of a member, in bytes.
const MAX_NAME_BYTES: usize = 4_096;

/// `POST /v1/batches?namespace=`: new 201, there before 200.
pub(crate) async fn submit(
    State(app): State<Shared>,
    query: Query,
    Whole(body): Whole,
) -> Result<(StatusCode, Json<BatchAnswer>), Problem> {
    let namespace = query.namespace_only()?;
    let submission: BatchSubmission = json("the batch", &body)?;
    let new = Box::pin(accept(&app, namespace, submission, &body)).await?;
    let answer = Box::pin(store(&app, new)).await?;
    let status = if answer.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(answer)))
}

/// Checks a batch, and that all which its members name is in the store.
async fn accept(app: &App, namespace: Namespace, submission: BatchSubmission, body: &[u8]) -> Result<NewBatch, Problem> {
    check(&submission)?;
    let BatchSubmission {
        id,
        name,
        parallel,
        max_failures,
        fail_fast,
        job,
        members,
    } = submission;
    let total = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let shared = serde_json::to_vec(&job).map_or(0, |bytes| bytes.len() as u64);
    app.fill.admit(u64::from(total), body.len() as u64 + shared * u64::from(total))?;
    let specs = members_of(app, id, parallel.is_some(), job, members).await?;
    let missing = check_inputs(&app.files, &specs, &std::collections::HashSet::new()).await?;
    if let Some(problem) = specs.iter().find_map(|spec| missing.first_of(spec)) {
        return Err(problem);
    }
    if let Some(first) = specs.first() {
        check_alone(app, &namespace, first).await?;
    }
    let submitted = BatchSubmitted {
        name,
        total,
        parallel,
        max_failures,
        fail_fast,
        retry_of: None,
        sha256: Digest::of(body),
    };
    Ok(NewBatch {
        id,
        namespace,
        submitted,
        specs,
    })
}

/// The jobs that a batch would have.
pub(super) async fn specs(app: &App, submission: BatchSubmission) -> Result<Vec<JobSpec>, Problem> {
    check(&submission)?;
    let window = submission.parallel.is_some();
    members_of(app, submission.id, window, submission.job, submission.members).await
}

async fn members_of(
    app: &App,
    id: BatchId,
    window: bool,
    job: Submission,
    members: Vec<MemberSubmission>,
) -> Result<Vec<JobSpec>, Problem> {
    let shared = share(app, job, members.first()).await?;
    // One table for all of them, whatever is edited meanwhile.
    let deployed = app.deployed.borrow().clone();
    let mut specs = Vec::with_capacity(members.len());
    for (member, index) in members.into_iter().zip(0..) {
        specs.push(spec(&deployed, &shared, member, (id, index), window)?);
        if index % 256 == 255 {
            // Others have requests too.
            tokio::task::yield_now().await;
        }
    }
    Ok(specs)
}

/// What all members share, with the files that came with it in the store.
async fn share(app: &App, mut job: Submission, first: Option<&MemberSubmission>) -> Result<Submission, Problem> {
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

/// The job that a member is.
fn spec(
    deployed: &RuntimesSet,
    shared: &Submission,
    member: MemberSubmission,
    (batch, index): (BatchId, u32),
    window: bool,
) -> Result<JobSpec, Problem> {
    let mut one = shared.clone();
    if !member.command.is_empty() {
        one.command = member.command;
    }
    one.inputs.extend(member.inputs);
    one.tree = member.tree.or(one.tree);
    one.env.extend(member.env);
    let at = |Refusal(why)| {
        Problem::from(Refusal(format!(
            "member {index} of the batch ({}): {why}",
            member.item.escape_debug()
        )))
    };
    deployed.resolve(&mut one).map_err(at)?;
    let mut spec = one.accept().map_err(at)?.spec;
    if window {
        spec.start = Some(Start {
            window: true,
            ..Start::default()
        });
    }
    spec.batch = Some(BatchMember {
        batch,
        index,
        item: member.item,
        of: None,
    });
    Ok(spec)
}

fn check(batch: &BatchSubmission) -> Result<(), Problem> {
    let refuse = |why: String| Err(Problem::from(Refusal(why)));
    let members = batch.members.len();
    if members == 0 {
        return refuse("`members` is empty; a batch has at least one".to_owned());
    }
    if members > MAX_MEMBERS as usize {
        let detail = format!("{members} members are too many; a batch may have {MAX_MEMBERS}: make several of it");
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    if batch.parallel == Some(0) {
        return refuse("`parallel` is 0, and nothing would ever run; leave it out, or let at least 1 run at once".to_owned());
    }
    if batch.max_failures == Some(0) {
        return refuse("`max_failures` is 0; with 1, the first failure stops the batch".to_owned());
    }
    if batch.fail_fast && batch.max_failures.is_none() {
        return refuse("`fail_fast` says what happens at `max_failures`, which is absent; give it too".to_owned());
    }
    if batch.job.key.is_some() {
        return refuse("`job.key` would make all members the same job; the batch's `id` makes it idempotent".to_owned());
    }
    if batch.job.id.is_some() {
        return refuse("`job.id` would make all members the same job; the ids of members follow from the batch's `id`".to_owned());
    }
    if batch.parallel.is_some() && batch.job.start.as_ref().is_some_and(|start| !start.is_empty()) {
        return refuse("`parallel` and `job.start` (a delay, a time, other jobs) cannot be had together; leave one of them out".to_owned());
    }
    let names = std::iter::once(&batch.name).chain(batch.members.iter().map(|member| &member.item));
    for name in names {
        if name.len() > MAX_NAME_BYTES || name.contains('\0') {
            return refuse(format!(
                "a name has {} bytes, or holds a NUL; it may have {MAX_NAME_BYTES} and hold none",
                name.len()
            ));
        }
    }
    Ok(())
}
