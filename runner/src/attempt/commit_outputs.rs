//! Storing what an attempt leaves: its outputs, its log, and the manifest.

use bus::{
    job::{ManifestRef, Usage},
    output::manifest::Manifest,
};

use crate::{
    attempt::{
        context::Context,
        end::{AttemptError, CommandEnd, EarlyEnd, Executed, NotCommitted},
        outputs::{self, FoundOutputs, StoredOutputs},
        registry::{Entry, StopReason},
        workspace::Workspace,
    },
    beneath,
    inputs::StagedInputs,
    log::spool::Logbook,
    patience::patiently,
};

/// A manifest with more entries than this is serialized on another thread.
const MANY: usize = 1000;

/// Stores what a command left, unless the runner's own shutdown ended the command. A cancellation stops this too, and nothing is stored.
pub(crate) async fn collect(
    context: &Context,
    entry: &mut Entry,
    workspace: &Workspace,
    (staged, wanted): (&StagedInputs, Option<&[String]>),
    logbook: Logbook,
    ran: Result<CommandEnd, AttemptError>,
) -> Result<Executed, NotCommitted> {
    if context.shutdown.ended(&ran).await {
        return Err(NotCommitted::Interrupted);
    }
    let storing = async {
        match ran {
            Ok(end) => Box::pin(keep(context, workspace, (staged, wanted), logbook))
                .await
                .map(|manifest| (end, manifest)),
            // What was logged before the failure (an image that was pulled, the command's first lines) is stored all the same.
            Err(error) => {
                let outcome = error.outcome();
                let usage = Usage::default();
                Box::pin(keep_log(context, StoredOutputs::default(), logbook))
                    .await
                    .map(|manifest| (CommandEnd { outcome, usage }, manifest))
            }
        }
    };
    tokio::select! {
        stored = storing => Ok(stored),
        stop = wait_for_discard(entry) => Ok(Ok((EarlyEnd::Stop(stop).before_start()?, None))),
    }
}

/// Waits for a reason not to store the outputs. A runner that is stopping still commits what it can.
async fn wait_for_discard(entry: &mut Entry) -> StopReason {
    loop {
        match entry.stop().await {
            StopReason::Leave | StopReason::Shutdown => {}
            stop @ (StopReason::Cancel | StopReason::Fenced) => return stop,
        }
    }
}

/// Stores the outputs and the log, then the manifest.
async fn keep(
    context: &Context,
    workspace: &Workspace,
    (staged, wanted): (&StagedInputs, Option<&[String]>),
    mut logbook: Logbook,
) -> Result<Option<ManifestRef>, AttemptError> {
    let found = if workspace.is_untouched() {
        FoundOutputs::nothing(wanted)
    } else {
        let (work, staged, wanted) = (workspace.work.clone(), staged.clone(), wanted.map(ToOwned::to_owned));
        // On another thread, because a command may leave millions of files; it stops when this future is dropped.
        let stop = beneath::Stop::default();
        let _stop_looking = stop.guard();
        let looking = tokio::task::spawn_blocking(move || outputs::find(&work, &staged, wanted.as_deref(), &stop));
        looking.await.map_err(|_| outputs::Error::Look)?
    };
    let kept = found.store(&context.files).await?;
    for sentence in kept.sentences() {
        logbook.note(&sentence).await?;
    }
    keep_log(context, kept, logbook).await
}

/// Stores the log, then the manifest.
async fn keep_log(context: &Context, kept: StoredOutputs, logbook: Logbook) -> Result<Option<ManifestRef>, AttemptError> {
    let log = logbook.finish().await?;
    let manifest = Manifest {
        outputs: kept.outputs,
        links: kept.links,
        deleted: kept.deleted,
        left_out: kept.left_out,
        unmatched: kept.unmatched,
        log: log.segments,
        stdout_bytes: log.stdout_bytes,
        stderr_bytes: log.stderr_bytes,
    };
    if manifest.is_empty() {
        return Ok(None);
    }
    let (manifest, json) = if manifest.outputs.len() + manifest.links.len() + manifest.deleted.len() > MANY {
        let written = tokio::task::spawn_blocking(move || (manifest.to_json(), manifest)).await;
        written.map(|(json, manifest)| (manifest, json)).map_err(|_| outputs::Error::Look)?
    } else {
        let json = manifest.to_json();
        (manifest, json)
    };
    let json = bytes::Bytes::from(json);
    let sha256 = patiently("store the list of outputs", || context.files.put_bytes(json.clone()))
        .await
        .map_err(AttemptError::Manifest)?;
    Ok(Some(manifest.reference(sha256)))
}
