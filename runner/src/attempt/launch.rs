//! Starting an attempt's command, by the executor that it gets.

use std::collections::BTreeMap;

use bus::{
    ids::Attempt,
    job::{Command, Job},
    output::frame::Stream,
    spec::{ExecutorKind, dependencies::Kind},
};
use bytes::Bytes;
use chrono::Utc;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::{
    attempt::{
        context::Context,
        end::{AttemptError, EarlyEnd},
        registry::Entry,
        secrets,
        supervise::{Started, wait_for_early_end},
        workspace::Workspace,
    },
    executor::{Chosen, Error, Executor, Launch, Limits, Packages, Running},
    log::spool::Logbook,
    packages,
    secrets::Values,
};

/// Notices about the preparation that may wait to be written to the job's log.
const NOTICES: usize = 16;

/// Starts the command of a staged attempt. The outer error means that the attempt was ended before that.
pub(crate) async fn launch(
    context: &Context,
    entry: &mut Entry,
    workspace: &Workspace,
    logbook: &mut Logbook,
    job: &Job,
    attempt: Attempt,
) -> Result<Result<Started, AttemptError>, EarlyEnd> {
    let secrets = match secrets(context, entry, job, logbook).await? {
        Ok(secrets) => secrets,
        Err(error) => return Ok(Err(error)),
    };
    let (notice, mut notices) = mpsc::channel(NOTICES);
    let launching = by_executor(context, workspace, job, attempt, secrets, notice);
    let early = wait_for_early_end(entry, job);
    tokio::pin!(launching, early);
    let launched = loop {
        tokio::select! {
            launched = &mut launching => break launched,
            early = &mut early => return Err(early),
            Some(sentence) = notices.recv() => if let Err(error) = logbook.note(&sentence).await {
                return Ok(Err(error.into()));
            },
        }
    };
    // The last notices, before the start succeeded or failed.
    while let Ok(sentence) = notices.try_recv() {
        if let Err(error) = logbook.note(&sentence).await {
            return Ok(Err(error.into()));
        }
    }
    let (kind, running) = match launched {
        Ok(launched) => launched,
        Err(error) => {
            if let AttemptError::Packages(error) = &error
                && let Err(error) = logbook.write(Stream::Stderr, Bytes::copy_from_slice(error.output())).await
            {
                return Ok(Err(error.into()));
            }
            return Ok(Err(error));
        }
    };
    let start = Command::Start {
        attempt,
        session: context.session,
        executor: kind,
        environment: running.environment.clone(),
    };
    Ok(Ok(Started {
        running,
        begun: Utc::now(),
        start: Some(start),
    }))
}

/// Fetches the attempt's secrets, and masks them in its log.
async fn secrets(context: &Context, entry: &mut Entry, job: &Job, logbook: &mut Logbook) -> Result<Result<Values, AttemptError>, EarlyEnd> {
    if job.spec.secrets.is_empty() {
        return Ok(Ok(Values::default()));
    }
    let values = tokio::select! {
        values = secrets::fetch(&context.js, &context.worker, context.secrets.as_ref(), job) => values,
        early = wait_for_early_end(entry, job) => return Err(early),
    };
    let values = match values {
        Ok(values) => values,
        Err(error) => return Ok(Err(error.into())),
    };
    Ok(match logbook.mask(&values).await {
        Ok(()) => Ok(values),
        Err(error) => Err(error.into()),
    })
}

/// Chooses the executor, and starts the command with its packages. Where the chosen executor is broken, and the job does not require it,
/// another one is used.
async fn by_executor(
    context: &Context,
    workspace: &Workspace,
    job: &Job,
    attempt: Attempt,
    secrets: Values,
    notice: mpsc::Sender<String>,
) -> Result<(ExecutorKind, Running), AttemptError> {
    if let Some(runtime) = &job.spec.runtime
        && !context.executors.runtimes.table().knows(&runtime.name)
        && let Err(error) = context.executors.runtimes.read(&context.js).await
    {
        // The runtime may have been added a moment ago.
        debug!(job.id = %job.id, "cannot read which runtimes the deployment has: {error}");
    }
    let Chosen { executor, why, instead } = context.executors.choose((&job.spec).into()).await?;
    debug!(job.id = %job.id, "executor {}: {why}", executor.kind());
    let launch_of = || Launch {
        secrets: secrets.clone(),
        ..launch_of(context, workspace, job, attempt, notice.clone())
    };
    let launched = with_packages(context, workspace, job, executor, launch_of(), &notice).await;
    match (launched, instead) {
        (
            Err(AttemptError::Executor(Error::Broken(why)) | AttemptError::Packages(packages::Error::Executor(Error::Broken(why)))),
            Some(other),
        ) => {
            warn!(job.id = %job.id, "job {} runs by {} instead: {why}", job.id, other.kind());
            // Where the channel is full, the notice is dropped.
            let _ = notice.try_send(format!("{why}; running it as a plain process instead"));
            let running = with_packages(context, workspace, job, other, launch_of(), &notice).await?;
            Ok((other.kind(), running))
        }
        (launched, _) => Ok((executor.kind(), launched?)),
    }
}

/// Starts a command, once its packages are installed.
async fn with_packages(
    context: &Context,
    workspace: &Workspace,
    job: &Job,
    executor: &dyn Executor,
    mut launch: Launch,
    notice: &mpsc::Sender<String>,
) -> Result<Running, AttemptError> {
    let dependencies = job.spec.dependencies.as_ref().filter(|_| executor.kind() != ExecutorKind::Noop);
    let Some(dependencies) = dependencies else {
        return Ok(executor.launch(launch).await?);
    };
    let fitting = packages::fitting(executor, &mut launch, dependencies)
        .await
        .map_err(AttemptError::Packages)?;
    if dependencies.installs_nothing() {
        if !fitting {
            let checked = context.packages.check(&context.files, executor, &launch, dependencies, notice);
            checked.await.map_err(AttemptError::Packages)?;
        }
        return Ok(executor.launch(launch).await?);
    }
    let ready = context
        .packages
        .ready(&context.files, executor, &launch, dependencies, notice)
        .await;
    let held = ready.map_err(AttemptError::Packages)?;
    // A container may outlive this runner, and the next one must find its packages.
    if executor.kind() == ExecutorKind::Docker {
        held.note(&workspace.root).map_err(AttemptError::Workspace)?;
    }
    if dependencies.kind == Kind::Npm {
        packages::link_modules(&workspace.work, executor.kind(), &held).map_err(AttemptError::Workspace)?;
    }
    launch.packages = Some(Packages {
        kind: dependencies.kind,
        dir: held.dir(),
    });
    let running = executor.launch(launch).await?;
    Ok(Running {
        packages: Some(Box::new(held)),
        ..running
    })
}

fn launch_of(context: &Context, workspace: &Workspace, job: &Job, attempt: Attempt, notice: mpsc::Sender<String>) -> Launch {
    let spec = &job.spec;
    let mut env: BTreeMap<String, String> = [
        ("RGRID_JOB_ID", job.id.to_string()),
        ("RGRID_ATTEMPT", attempt.to_string()),
        ("RGRID_NAMESPACE", job.namespace.to_string()),
        ("RGRID_WORKER", context.worker.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    env.extend(spec.env.clone());
    Launch {
        job: job.id,
        attempt,
        session: context.session,
        command: spec.command.clone(),
        runtime: spec.runtime.clone(),
        image: spec.image.clone(),
        env,
        secrets: Values::default(),
        work_dir: workspace.work.clone(),
        dir: spec.dir.clone(),
        scratch_dir: workspace.scratch.clone(),
        packages: None,
        inputs: workspace.inputs.clone(),
        installs: false,
        stdin: spec.stdin.is_some().then(|| workspace.stdin()),
        user: workspace.run_as(),
        limits: Limits {
            cpu_milli: spec.resources.cpu_limit.then_some(spec.resources.cpu_milli),
            memory_bytes: spec.resources.memory_bytes,
            shm_bytes: spec.resources.shm_bytes,
        },
        notice: Some(notice),
    }
}
