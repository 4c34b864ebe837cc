//! Keeping what an attempt left behind: its outputs, its log, and the list of both.

use bus::{
    job::{ManifestRef, Usage},
    output::manifest::Manifest,
};

use crate::{
    attempt::{
        context::Context,
        end::{Broken, Cut, Done, Executed, Unfinished},
        outputs::{self, Found, Kept},
        registry::{Entry, Stop},
        workspace::Place,
    },
    beneath,
    inputs::Layout,
    log::spool::Logbook,
    patience::patiently,
};

/// A list of more than so much is written beside the session's loop.
const MANY: usize = 1000;

/// Keeps what a command left behind, unless the runner's own shutdown ended it. A cancel that comes now ends that too, and nothing is kept.
pub(crate) async fn collect(
    context: &Context,
    entry: &mut Entry,
    place: &Place,
    (laid, wanted): (&Layout, Option<&[String]>),
    logbook: Logbook,
    ran: Result<Done, Broken>,
) -> Result<Executed, Unfinished> {
    if context.shutdown.ended(&ran).await {
        return Err(Unfinished::Interrupted);
    }
    let keeping = async {
        match ran {
            Ok(done) => Box::pin(keep(context, place, (laid, wanted), logbook))
                .await
                .map(|manifest| (done, manifest)),
            // What it said before it failed (an image that was pulled, the command's first lines) is kept all the same.
            Err(error) => {
                let outcome = error.outcome();
                let usage = Usage::default();
                Box::pin(keep_log(context, Kept::default(), logbook))
                    .await
                    .map(|manifest| (Done { outcome, usage }, manifest))
            }
        }
    };
    tokio::select! {
        kept = keeping => Ok(kept),
        stop = given_up(entry) => Ok(Ok((Cut::Stop(stop).before_start()?, None))),
    }
}

/// Waits for a reason not to keep what a command left behind. A runner that is going down commits what it still can.
async fn given_up(entry: &mut Entry) -> Stop {
    loop {
        match entry.stop().await {
            Stop::Leave | Stop::Shutdown => {}
            stop @ (Stop::Cancel | Stop::Fenced) => return stop,
        }
    }
}

/// Stores everything that the attempt left behind, then the list of it.
async fn keep(
    context: &Context,
    place: &Place,
    (laid, wanted): (&Layout, Option<&[String]>),
    mut logbook: Logbook,
) -> Result<Option<ManifestRef>, Broken> {
    let found = if place.is_untouched() {
        Found::nothing(wanted)
    } else {
        let (work, laid, wanted) = (place.work.clone(), laid.clone(), wanted.map(ToOwned::to_owned));
        // A command may leave millions of files: no heartbeat waits for them.
        // Nor does it go on when nobody waits for it any more.
        let stop = beneath::Stop::default();
        let _stop_looking = stop.guard();
        let looking = tokio::task::spawn_blocking(move || outputs::find(&work, &laid, wanted.as_deref(), &stop));
        looking.await.map_err(|_| outputs::Error::Look)?
    };
    let kept = found.store(&context.files).await?;
    for sentence in kept.sentences() {
        logbook.note(&sentence).await?;
    }
    keep_log(context, kept, logbook).await
}

/// Stores the log, then the list of it and of the outputs.
async fn keep_log(context: &Context, kept: Kept, logbook: Logbook) -> Result<Option<ManifestRef>, Broken> {
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
        // Many megabytes take a while.
        let written = tokio::task::spawn_blocking(move || (manifest.to_json(), manifest)).await;
        written.map(|(json, manifest)| (manifest, json)).map_err(|_| outputs::Error::Look)?
    } else {
        let json = manifest.to_json();
        (manifest, json)
    };
    let json = bytes::Bytes::from(json);
    let sha256 = patiently("store the list of outputs", || context.files.put_bytes(json.clone()))
        .await
        .map_err(Broken::Manifest)?;
    Ok(Some(manifest.reference(sha256)))
}
