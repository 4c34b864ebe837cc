//! The part of an attempt between its claim and its commit: staging, the command, and the collection of what it leaves.

use bus::ids::Attempt;
use chrono::Utc;

use crate::{
    attempt::{
        commit_outputs::collect,
        context::Context,
        deadline::Limit,
        end::{AttemptError, EarlyEnd, Executed, NotCommitted},
        launch, leave,
        registry::{Entry, StopReason},
        slot::{Slot, SlotRequest},
        stage,
        supervise::{self, Started},
        workspace::Workspace,
        writer::JobWriter,
    },
    inputs::{Inputs, StagedInputs},
    log::spool::Logbook,
    packages,
};

/// Stages the inputs, waits for a slot, runs the command and collects its outputs. The outer error means that nothing is committed, the
/// inner one that the attempt ends in an error.
pub(crate) async fn execute(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    attempt: Attempt,
    request: SlotRequest,
) -> Result<Executed, NotCommitted> {
    let job = writer.job().clone();
    let nothing = |done| Ok(Ok((done, None)));
    if let Some(limit) = Limit::in_total(&job, Utc::now()).filter(|limit| limit.after.is_zero()) {
        return nothing(EarlyEnd::TimedOut(limit).before_start()?);
    }
    let files = job.spec.inputs.len() as u64 + job.spec.tree.as_ref().map_or(0, |tree| tree.files);
    let mut workspace = match context.workspaces.take(files) {
        Ok(workspace) => workspace,
        Err(error) => return Ok(Err(AttemptError::Workspace(error))),
    };
    let prepared = tokio::select! {
        biased;
        prepared = prepare(stage::stage(&context.files, &context.input_cache, &workspace, &job.spec), request) => prepared,
        early = supervise::wait_for_early_end(entry, &job) => Err(early.before_start().map(|done| Ok((done, None)))),
    };
    let slot = match prepared {
        Ok((staged, slot)) => {
            workspace.inputs = Inputs::new(packages::with_modules(staged, &job.spec), &workspace.root);
            slot
        }
        Err(end) => {
            workspace.spoil();
            return end;
        }
    };
    let mut logbook = Logbook::new(
        &context.js,
        &context.files,
        (&job.namespace, job.id, attempt),
        &workspace.root,
        context.spool_bytes,
    );
    let wanted = job.spec.outputs.as_deref();
    let launched = launch::launch(context, entry, &workspace, &mut logbook, &job, attempt).await;
    let staged = std::mem::take(&mut workspace.inputs).into_staged();
    let started = match launched {
        Ok(Ok(started)) => started,
        Ok(Err(error)) => return collect(context, entry, &workspace, (&staged, wanted), logbook, Err(error)).await,
        // The command never ran: it has no outputs.
        Err(early) => return collect(context, entry, &workspace, (&staged, Some(&[])), logbook, Ok(early.before_start()?)).await,
    };
    Box::pin(follow_to_end(context, writer, entry, slot, (workspace, staged, logbook), started)).await
}

/// Stages the inputs while the attempt waits for its slot; the first of both that fails ends the attempt.
async fn prepare(
    stage: impl Future<Output = Result<StagedInputs, stage::Error>>,
    request: SlotRequest,
) -> Result<(StagedInputs, Slot), Result<Executed, NotCommitted>> {
    let staged = async { stage.await.map_err(|error| Ok(Err(error.into()))) };
    let slot = async { request.granted().await.ok_or(Err(NotCommitted::NoRoom)) };
    tokio::try_join!(staged, slot)
}

/// Follows a command to its end and stores its outputs; or leaves it to the next runner.
pub(crate) async fn follow_to_end(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    slot: Slot,
    (workspace, staged, mut logbook): (Workspace, StagedInputs, Logbook),
    started: Started,
) -> Result<Executed, NotCommitted> {
    let ran = match supervise::follow(context, writer, entry, &mut logbook, started).await {
        Ok(ran) => ran,
        Err(NotCommitted::Leaving(leaving)) => {
            let left = leave::leave(context, entry.which(), workspace, staged, logbook, leaving).await;
            return Err(if left {
                NotCommitted::Stopped(StopReason::Leave)
            } else {
                NotCommitted::Interrupted
            });
        }
        Err(not_committed) => return Err(not_committed),
    };
    // The next command need not wait for the store and the log.
    drop(slot);
    let wanted = writer.job().spec.outputs.as_deref();
    collect(context, entry, &workspace, (&staged, wanted), logbook, ran).await
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        io,
    };

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn staging_stops_where_the_attempt_gets_no_slot() {
        let (give, awaited) = oneshot::channel();
        drop(give);
        let end = prepare(pending(), SlotRequest::Pending(awaited)).await;
        assert!(matches!(end, Err(Err(NotCommitted::NoRoom))));
    }

    #[tokio::test]
    async fn an_attempt_whose_staging_fails_does_not_wait_for_a_slot() {
        let (_give, awaited) = oneshot::channel();
        let broken = stage::Error::Disk {
            path: "x".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        let end = prepare(ready(Err(broken)), SlotRequest::Pending(awaited)).await;
        assert!(matches!(end, Err(Ok(Err(AttemptError::Stage(_))))));
    }
}
