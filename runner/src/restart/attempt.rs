//! An attempt that goes from one runner of its worker to the next: left running, and taken up.

use std::{sync::Arc, time::Instant};

use bus::{
    job::{Command, Phase},
    spec::ExecutorKind,
};
use tracing::{info, warn};

use crate::{
    attempt::{
        commit::{conclude, told},
        context::Context,
        end::{Broken, Executed, Unfinished},
        execute::to_its_end,
        fence,
        left::LeftAttempt,
        registry::{Entry, Stop},
        slot::Taken,
        supervise::Started,
        workspace::Place,
        writer::JobWriter,
    },
    executor,
    inputs::Layout,
    log::spool::Logbook,
};

/// Goes on with an attempt that the last runner left to us.
pub(crate) async fn go_on(context: Arc<Context>, mut writer: JobWriter, mut entry: Entry, left: LeftAttempt, taken: Taken) {
    let (id, attempt, namespace) = (left.job, left.attempt, writer.job().namespace.clone());
    info!(job.id = %id, "going on with attempt {attempt} of job {id}, which the last runner left");
    let begun = Instant::now();
    let carrying = async {
        let executed = take_up(&context, &mut writer, &mut entry, left, taken).await;
        conclude(&context, &mut writer, entry, attempt, begun, executed).await
    };
    let carried = tokio::select! {
        carried = carrying => carried,
        never = fence::watch(&context, namespace, id, attempt) => match never {},
    };
    told(id, attempt, carried);
}

async fn take_up(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    left: LeftAttempt,
    taken: Taken,
) -> Result<Executed, Unfinished> {
    let job = writer.job().clone();
    let place = context.places.take_up(&left.root);
    let seen = left.log.piped;
    let names = (&job.namespace, job.id, left.attempt);
    let mut logbook = Logbook::new(&context.js, &context.files, names, &place.root, context.spool_bytes).resume(left.log);
    if let Err(error) = masked(&mut logbook, &place).await {
        // Its container is not ours yet, and would go on without an owner.
        if let Ok(docker) = &context.executors.docker {
            docker.discard(left.command);
        }
        return Ok(Err(error));
    }
    let laid = Layout {
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
        // It is this machine's failure, and no end of the job: what no beat lists is made again.
        Err(error) => {
            warn!(job.id = %job.id, "cannot go on with attempt {} of job {}: {error}", left.attempt, job.id);
            if let Ok(docker) = &context.executors.docker {
                docker.discard(left.command);
            }
            return Err(Unfinished::Stopped(Stop::Fenced));
        }
    };
    let say = matches!(job.phase, Phase::Claimed { .. }).then(|| Command::Start {
        attempt: left.attempt,
        session: context.session,
        executor: ExecutorKind::Docker,
        environment: None,
    });
    let started = Started {
        running,
        begun: left.begun,
        say,
    };
    Box::pin(to_its_end(context, writer, entry, taken, (place, laid, logbook), started)).await
}

/// Has the log keep to itself what the last runner gave the command.
async fn masked(logbook: &mut Logbook, place: &Place) -> Result<(), Broken> {
    let values = crate::secrets::left(&place.work).map_err(Broken::Place)?;
    Ok(logbook.mask(&values).await?)
}
