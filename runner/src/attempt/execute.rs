//! The part of an attempt between its claim and its commit: staging, the command, and the collection of what it leaves.

use bus::ids::Attempt;
use chrono::Utc;

use crate::{
    attempt::{
        commit_outputs::collect,
        context::Context,
        deadline::Limit,
        end::{Broken, Cut, Executed, Unfinished},
        launch, leave,
        registry::{Entry, Stop},
        slot::{Share, Taken},
        stage,
        supervise::{self, Started},
        workspace::Place,
        writer::JobWriter,
    },
    inputs::{Inputs, Layout},
    log::spool::Logbook,
    packages,
};

/// Stages, waits for room, executes and collects. The outer error means that nothing is to be committed, the inner one that the attempt
/// ends in an error.
pub(crate) async fn execute(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    attempt: Attempt,
    share: Share,
) -> Result<Executed, Unfinished> {
    let job = writer.job().clone();
    let nothing = |done| Ok(Ok((done, None)));
    if let Some(limit) = Limit::in_total(&job, Utc::now()).filter(|limit| limit.after.is_zero()) {
        return nothing(Cut::Late(limit).before_start()?);
    }
    let files = job.spec.inputs.len() as u64 + job.spec.tree.as_ref().map_or(0, |tree| tree.files);
    let mut place = match context.places.take(files) {
        Ok(place) => place,
        Err(error) => return Ok(Err(Broken::Place(error))),
    };
    let prepared = tokio::select! {
        biased;
        prepared = prepare(stage::lay(&context.files, &context.input_cache, &place, &job.spec), share) => prepared,
        cut = supervise::cut_early(entry, &job) => Err(cut.before_start().map(|done| Ok((done, None)))),
    };
    let taken = match prepared {
        Ok((laid, taken)) => {
            place.inputs = Inputs::new(packages::with_modules(laid, &job.spec), &place.root);
            taken
        }
        Err(end) => {
            place.spoil();
            return end;
        }
    };
    let mut logbook = Logbook::new(
        &context.js,
        &context.files,
        (&job.namespace, job.id, attempt),
        &place.root,
        context.spool_bytes,
    );
    let wanted = job.spec.outputs.as_deref();
    let launched = launch::launch(context, entry, &place, &mut logbook, &job, attempt).await;
    let laid = std::mem::take(&mut place.inputs).into_layout();
    let started = match launched {
        Ok(Ok(started)) => started,
        Ok(Err(error)) => return collect(context, entry, &place, (&laid, wanted), logbook, Err(error)).await,
        // It never ran: nothing there is its.
        Err(cut) => return collect(context, entry, &place, (&laid, Some(&[])), logbook, Ok(cut.before_start()?)).await,
    };
    Box::pin(to_its_end(context, writer, entry, taken, (place, laid, logbook), started)).await
}

/// Lays files out while room is waited for; the first of both that fails is the attempt's end.
async fn prepare(
    lay: impl Future<Output = Result<Layout, stage::Error>>,
    share: Share,
) -> Result<(Layout, Taken), Result<Executed, Unfinished>> {
    let laid = async { lay.await.map_err(|error| Ok(Err(error.into()))) };
    let taken = async { share.taken().await.ok_or(Err(Unfinished::NoRoom)) };
    tokio::try_join!(laid, taken)
}

/// Follows a command to its end and keeps what it left behind; or leaves it to the next runner.
pub(crate) async fn to_its_end(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    taken: Taken,
    (place, laid, mut logbook): (Place, Layout, Logbook),
    started: Started,
) -> Result<Executed, Unfinished> {
    let ran = match supervise::follow(context, writer, entry, &mut logbook, started).await {
        Ok(ran) => ran,
        Err(Unfinished::Leaving(leaving)) => {
            let left = leave::leave(context, entry.which(), place, laid, logbook, leaving).await;
            return Err(if left {
                Unfinished::Stopped(Stop::Leave)
            } else {
                Unfinished::Interrupted
            });
        }
        Err(unfinished) => return Err(unfinished),
    };
    // What follows waits for the store and the log; the next command need not.
    drop(taken);
    let wanted = writer.job().spec.outputs.as_deref();
    collect(context, entry, &place, (&laid, wanted), logbook, ran).await
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
    async fn what_gets_no_room_is_not_laid_out_to_its_end() {
        let (give, awaited) = oneshot::channel();
        drop(give);
        let end = prepare(pending(), Share::Awaited(awaited)).await;
        assert!(matches!(end, Err(Err(Unfinished::NoRoom))));
    }

    #[tokio::test]
    async fn what_cannot_be_laid_out_does_not_wait_for_room() {
        let (_give, awaited) = oneshot::channel();
        let broken = stage::Error::Disk {
            path: "x".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        let end = prepare(ready(Err(broken)), Share::Awaited(awaited)).await;
        assert!(matches!(end, Err(Ok(Err(Broken::Stage(_))))));
    }
}
