//! Stores a batch: `batch.submitted`, its members, `batch.sealed`. Each step may be repeated.

use bus::{
    batch::{Batch, BatchSubmitted, Command, Phase, Recorded, Rejection, decide},
    ids::{BatchId, JobId, Namespace},
    log::{append, read, room::Admitted},
};
use model::{BatchAnswer, Kind, SubmittedOne};

use super::{cancel::cancel_members, command::apply_command, members::Members};
use crate::{
    app::App,
    error::ApiError,
    jobs::{NewJob, submit_all},
};

/// A batch that has been checked, and whose inputs are in the store.
pub(super) struct NewBatch {
    pub(super) id: BatchId,
    pub(super) namespace: Namespace,
    pub(super) submitted: BatchSubmitted,
    /// Its members, which have been checked.
    pub(super) members: Members,
    /// The room for them in the log.
    pub(super) room: Admitted,
}

/// Stores a batch, or completes one whose submission was interrupted.
pub(super) async fn store(app: &App, new: NewBatch) -> Result<BatchAnswer, ApiError> {
    let NewBatch {
        id,
        namespace,
        submitted,
        members,
        room: _room,
    } = new;
    let answer = |sequence, existed, warning| BatchAnswer {
        id,
        namespace: namespace.clone(),
        total: submitted.total,
        sequence,
        existed,
        warning,
    };
    check_namespace(app, &namespace, id).await?;
    let batch = begin(app, &namespace, id, &submitted).await?;
    if batch.phase != Phase::Submitting {
        return Ok(answer(batch.sequence, true, None));
    }
    let live = app.advice.live();
    let (mut reader, mut index, mut warning) = (members.read(), 0, None);
    loop {
        let (specs, _) = reader.page().await?;
        if specs.is_empty() {
            break;
        }
        let new = |spec| {
            let job = NewJob::member(namespace.clone(), JobId::of_member(id, index), spec);
            index += 1;
            Ok(job)
        };
        let page = specs.into_iter().map(new).collect();
        for answer in Box::pin(submit_all(app, page, live.as_deref())).await {
            match answer {
                SubmittedOne::Job(job) => warning = warning.or(job.warning),
                SubmittedOne::Refused { problem } => return Err(problem.into()),
            }
        }
    }
    let sequence = seal(app, id).await?;
    Ok(answer(sequence, false, warning))
}

/// Refuses an id that a batch of another namespace has: the members of both would have the same job ids, and the log's own check covers
/// one namespace.
async fn check_namespace(app: &App, namespace: &Namespace, id: BatchId) -> Result<(), ApiError> {
    match read::batch(&app.bus.js, id).await? {
        Some(batch) if batch.namespace != *namespace => {
            let detail = format!("the id {id} belongs to a different batch; choose a new UUIDv7 for this one");
            Err(ApiError::new(Kind::Conflict, detail))
        }
        _ => Ok(()),
    }
}

/// Stores `batch.submitted`, unless the batch exists; returns the batch.
async fn begin(app: &App, namespace: &Namespace, id: BatchId, submitted: &BatchSubmitted) -> Result<Batch, ApiError> {
    let command = || Command::Submit(submitted.clone());
    let created = app.writer.create::<Batch>(namespace, &id, command()).await;
    let (envelope, pending) = created.map_err(rejected)?;
    match pending.stored().await {
        Ok(sequence) => {
            let recorded = Recorded {
                namespace: namespace.clone(),
                batch: id,
                sequence,
                envelope,
            };
            Batch::evolve(None, &recorded).ok_or_else(|| super::unknown(id))
        }
        Err(append::Error::Conflict { .. }) => {
            let batch = super::find(app, id).await?;
            match decide(Some(&batch), command()) {
                Err(Rejection::Exists) => Ok(batch),
                Err(rejection) => Err(rejected(rejection)),
                Ok(_) => Err(ApiError::new(Kind::Internal, format!("batch {id} was submitted twice"))),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Stores `batch.sealed`, unless it is in the log.
async fn seal(app: &App, id: BatchId) -> Result<u64, ApiError> {
    match apply_command(app, id, &Command::Seal).await? {
        (batch, None | Some(Rejection::Sealed)) => Ok(batch.sequence),
        // The batch was cancelled while its members were being submitted: cancel the members that were submitted after that.
        (batch, Some(_)) => {
            cancel_members(app, &batch, None).await?;
            let detail = format!("batch {id} was cancelled while it was being submitted");
            Err(ApiError::new(Kind::Conflict, detail))
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn rejected(rejection: Rejection) -> ApiError {
    ApiError::new(Kind::Conflict, rejection.to_string())
}
