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
        end::{Broken, Cut},
        registry::Entry,
        secrets,
        supervise::{Started, cut_early},
        workspace::Place,
    },
    executor::{Chosen, Error, Executor, Launch, Limits, Packages, Running},
    log::spool::Logbook,
    packages,
    secrets::Values,
};

/// Sentences about the preparation that may wait to be put into the log.
const NOTICES: usize = 16;

/// Starts the command of a staged attempt. The outer error means that it was cut before that.
pub(crate) async fn launch(
    context: &Context,
    entry: &mut Entry,
    place: &Place,
    logbook: &mut Logbook,
    job: &Job,
    attempt: Attempt,
) -> Result<Result<Started, Broken>, Cut> {
    let secrets = match secrets(context, entry, job, logbook).await? {
        Ok(secrets) => secrets,
        Err(error) => return Ok(Err(error)),
    };
    let (notice, mut notices) = mpsc::channel(NOTICES);
    let launching = by_executor(context, place, job, attempt, secrets, notice);
    let cut = cut_early(entry, job);
    tokio::pin!(launching, cut);
    let launched = loop {
        tokio::select! {
            launched = &mut launching => break launched,
            cut = &mut cut => return Err(cut),
            Some(sentence) = notices.recv() => if let Err(error) = logbook.note(&sentence).await {
                return Ok(Err(error.into()));
            },
        }
    };
    // What was said last, before it succeeded or failed.
    while let Ok(sentence) = notices.try_recv() {
        if let Err(error) = logbook.note(&sentence).await {
            return Ok(Err(error.into()));
        }
    }
    let (kind, running) = match launched {
        Ok(launched) => launched,
        Err(error) => {
            if let Broken::Packages(error) = &error
                && let Err(error) = logbook.write(Stream::Stderr, Bytes::copy_from_slice(error.output())).await
            {
                return Ok(Err(error.into()));
            }
            return Ok(Err(error));
        }
    };
    let say = Command::Start {
        attempt,
        session: context.session,
        executor: kind,
        environment: running.environment.clone(),
    };
    Ok(Ok(Started {
        running,
        begun: Utc::now(),
        say: Some(say),
    }))
}

/// Fetches the attempt's secrets, and has its logbook keep them to itself.
async fn secrets(context: &Context, entry: &mut Entry, job: &Job, logbook: &mut Logbook) -> Result<Result<Values, Broken>, Cut> {
    if job.spec.secrets.is_empty() {
        return Ok(Ok(Values::default()));
    }
    let values = tokio::select! {
        values = secrets::fetch(&context.js, &context.worker, context.secrets.as_ref(), job) => values,
        cut = cut_early(entry, job) => return Err(cut),
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

/// Chooses the executor, and starts the command with its packages. What the job does not insist on is done otherwise where it fails.
async fn by_executor(
    context: &Context,
    place: &Place,
    job: &Job,
    attempt: Attempt,
    secrets: Values,
    notice: mpsc::Sender<String>,
) -> Result<(ExecutorKind, Running), Broken> {
    if let Some(runtime) = &job.spec.runtime
        && !context.executors.runtimes.table().knows(&runtime.name)
        && let Err(error) = context.executors.runtimes.read(&context.js).await
    {
        // It was added a moment ago, or never: without the log nobody can tell.
        debug!(job.id = %job.id, "cannot read which runtimes the deployment has: {error}");
    }
    let Chosen { executor, why, instead } = context.executors.choose((&job.spec).into()).await?;
    debug!(job.id = %job.id, "executor {}: {why}", executor.kind());
    let asked = || Launch {
        secrets: secrets.clone(),
        ..asked(context, place, job, attempt, notice.clone())
    };
    let launched = with_packages(context, place, job, executor, asked(), &notice).await;
    match (launched, instead) {
        (Err(Broken::Executor(Error::Broken(why)) | Broken::Packages(packages::Error::Executor(Error::Broken(why)))), Some(other)) => {
            warn!(job.id = %job.id, "job {} runs by {} instead: {why}", job.id, other.kind());
            // Full of other sentences, it has said enough.
            let _ = notice.try_send(format!("{why}; running it as a plain process instead"));
            let running = with_packages(context, place, job, other, asked(), &notice).await?;
            Ok((other.kind(), running))
        }
        (launched, _) => Ok((executor.kind(), launched?)),
    }
}

/// Starts a command, once its packages are there.
async fn with_packages(
    context: &Context,
    place: &Place,
    job: &Job,
    executor: &dyn Executor,
    mut launch: Launch,
    notice: &mpsc::Sender<String>,
) -> Result<Running, Broken> {
    let dependencies = job.spec.dependencies.as_ref().filter(|_| executor.kind() != ExecutorKind::Noop);
    let Some(dependencies) = dependencies else {
        return Ok(executor.launch(launch).await?);
    };
    let fitting = packages::fitting(executor, &mut launch, dependencies)
        .await
        .map_err(Broken::Packages)?;
    if dependencies.installs_nothing() {
        if !fitting {
            let checked = context.packages.check(&context.files, executor, &launch, dependencies, notice);
            checked.await.map_err(Broken::Packages)?;
        }
        return Ok(executor.launch(launch).await?);
    }
    let ready = context
        .packages
        .ready(&context.files, executor, &launch, dependencies, notice)
        .await;
    let held = ready.map_err(Broken::Packages)?;
    // A container may outlive this runner, and go on with what the next one finds.
    if executor.kind() == ExecutorKind::Docker {
        held.note(&place.root).map_err(Broken::Place)?;
    }
    if dependencies.kind == Kind::Npm {
        packages::link_modules(&place.work, executor.kind(), &held).map_err(Broken::Place)?;
    }
    launch.packages = Some(Packages {
        kind: dependencies.kind,
        dir: held.dir(),
    });
    let running = executor.launch(launch).await?;
    Ok(Running {
        held: Some(Box::new(held)),
        ..running
    })
}

fn asked(context: &Context, place: &Place, job: &Job, attempt: Attempt, notice: mpsc::Sender<String>) -> Launch {
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
        work_dir: place.work.clone(),
        dir: spec.dir.clone(),
        scratch_dir: place.scratch.clone(),
        packages: None,
        inputs: place.inputs.clone(),
        installs: false,
        stdin: spec.stdin.is_some().then(|| place.stdin()),
        user: place.run_as(),
        limits: Limits {
            cpu_milli: spec.resources.cpu_limit.then_some(spec.resources.cpu_milli),
            memory_bytes: spec.resources.memory_bytes,
            shm_bytes: spec.resources.shm_bytes,
        },
        notice: Some(notice),
    }
}
