//! Continuing an attempt that the last runner of the worker left running.

use std::{sync::Arc, time::Instant};

use bus::{
    job::{Command, Phase},
    spec::ExecutorKind,
};
use tracing::{info, warn};

use crate::{
    attempt::{
        commit::{conclude, log_end},
        context::Context,
        end::{AttemptError, Executed, NotCommitted},
        execute::follow_to_end,
        fence,
        left::LeftAttempt,
        registry::{Entry, StopReason},
        slot::Slot,
        supervise::Started,
        workspace::Workspace,
        writer::JobWriter,
    },
    executor,
    inputs::StagedInputs,
    log::spool::Logbook,
};

/// Continues an attempt that the last runner left.
pub(crate) async fn resume(context: Arc<Context>, mut writer: JobWriter, mut entry: Entry, left: LeftAttempt, slot: Slot) {
    let (id, attempt, namespace) = (left.job, left.attempt, writer.job().namespace.clone());
    info!(job.id = %id, "continuing attempt {attempt} of job {id}, which the last runner left");
    let begun = Instant::now();
    let continuing = async {
        let executed = take_up(&context, &mut writer, &mut entry, left, slot).await;
        conclude(&context, &mut writer, entry, attempt, begun, executed).await
    };
    let ended = tokio::select! {
        ended = continuing => ended,
        never = fence::watch(&context, namespace, id, attempt) => match never {},
    };
    log_end(id, attempt, ended);
}

async fn take_up(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    left: LeftAttempt,
    slot: Slot,
) -> Result<Executed, NotCommitted> {
    let job = writer.job().clone();
    let workspace = context.workspaces.take_up(&left.root);
    let seen = left.log.piped;
    let names = (&job.namespace, job.id, left.attempt);
    let mut logbook = Logbook::new(&context.js, &context.files, names, &workspace.root, context.spool_bytes).resume(left.log);
    if let Err(error) = masked(&mut logbook, &workspace).await {
        // The container has no owner yet, and would run on.
        if let Ok(docker) = &context.executors.docker {
            docker.discard(left.command);
        }
        return Ok(Err(error));
    }
    let staged = StagedInputs {
        files: left.laid.into_iter().collect(),
        links: left.links.into_iter().collect(),
        dirs: left.dirs.into_iter().collect(),
    };
    let running = match &context.executors.docker {
        Ok(docker) => docker.take_up(&left.command, seen).await,
        Err(why) => Err(executor::Error::Broken(why.clone())),
    };
    let running = match running {
        Ok(running) => running,
        // A failure of this machine does not end the job: the watcher reschedules an attempt that no heartbeat lists.
        Err(error) => {
            warn!(job.id = %job.id, "cannot continue attempt {} of job {}: {error}", left.attempt, job.id);
            if let Ok(docker) = &context.executors.docker {
                docker.discard(left.command);
            }
            return Err(NotCommitted::Stopped(StopReason::Fenced));
        }
    };
    let start = matches!(job.phase, Phase::Claimed { .. }).then(|| Command::Start {
        attempt: left.attempt,
        session: context.session,
        executor: ExecutorKind::Docker,
        environment: None,
    });
    let started = Started {
        running,
        begun: left.begun,
        start,
    };
    Box::pin(follow_to_end(context, writer, entry, slot, (workspace, staged, logbook), started)).await
}

/// Masks the secrets that the last runner gave to the command in its log.
async fn masked(logbook: &mut Logbook, workspace: &Workspace) -> Result<(), AttemptError> {
    let values = crate::secrets::left(&workspace.work).map_err(AttemptError::Workspace)?;
    Ok(logbook.mask(&values).await?)
}
