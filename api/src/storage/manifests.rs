//! What attempts left behind: each list of outputs is read once, and small ones are known from then on.

use std::{sync::Arc, time::Duration};

use bus::{
    ids::{Digest, JobId},
    output::manifest::Manifest,
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use store::Files;
use tracing::warn;

use super::{
    Error, aside,
    fold::{Fold, Left},
    keeping::Moment,
    lists::{self, Lines, Listed, Text, Wanted},
    reading::Source,
    signed::{self, Nothing, Signed},
    used::{Used, kind},
};
use crate::error::chain;

/// Lists that are read at once.
const AT_ONCE: usize = 16;
/// The largest list of outputs that is read, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// How long the store may take to give, or to take, what is known of lists; then each is read instead, or again in the next pass.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is known is written anew once so many hundredths of it are new: writing costs as much as all of it.
const NEW_HUNDREDTHS: usize = 1;

/// Notes what attempts left behind; returns whose lists are lost, where it goes on despite that.
pub(super) async fn walk_manifests(source: &Source<'_>, fold: &Arc<Fold>, used: Used) -> Result<(Used, Vec<JobId>), Error> {
    let despite_lost = source.at.keeping.despite_lost;
    let kept = Signed {
        files: source.files,
        key: source.key,
        name: lists::NAME,
    };
    // Who gives up what lost lists named must find out which are lost.
    let before = if despite_lost { None } else { load(&kept).await };
    let (at, fold, text) = (source.at, Arc::clone(fold), before.clone());
    let (mut used, all, unknown) = aside(move || note_known(&fold, &at, used, text.as_ref())).await?;
    let (mut new, mut lost) = (0, Vec::new());
    let mut text = Text::begin().map_err(|error| broken(error.into()))?;
    let files = source.files;
    // In order, as they are written.
    let mut read = stream::iter(unknown)
        .map(|(list, keeps, job)| async move {
            let manifest = read_manifest(files, list, job, despite_lost).await?;
            Ok::<_, Error>(manifest.map(|manifest| (Listed::of(list, &manifest), keeps)).ok_or(job))
        })
        .buffered(AT_ONCE);
    while let Some(read) = read.try_next().await? {
        match read {
            Ok((listed, keeps)) => {
                note(&mut used, &listed, keeps);
                text.add(&listed).map_err(|error| broken(error.into()))?;
                new += 1;
            }
            Err(job) => lost.push(job),
        }
    }
    drop(read);
    if new > 0 && new * 100 >= all * NEW_HUNDREDTHS {
        let text = text.end().map_err(|error| broken(error.into()))?;
        keep(&kept, before, text).await;
    }
    Ok((used, lost))
}

/// Notes what known lists name; returns how many lists there are, and those that are not known.
fn note_known(fold: &Fold, at: &Moment, mut used: Used, text: Option<&Bytes>) -> (Used, usize, Vec<Wanted>) {
    let wanted = wanted(fold, at);
    let all = wanted.len();
    let Some(text) = text else { return (used, all, wanted) };
    let lines = Lines::of(text);
    match lines.and_then(|lines| lists::known(&wanted, lines, |listed, keeps| note(&mut used, &listed, keeps))) {
        Ok(unknown) => (used, all, unknown),
        Err(error) => {
            warn!("what is known of lists of outputs cannot be read to its end ({error}); each list is read");
            (used, all, wanted)
        }
    }
}

/// Each list once, in order.
fn wanted(fold: &Fold, at: &Moment) -> Vec<Wanted> {
    let mut order: Vec<&Left> = fold.left.iter().collect();
    order.sort_unstable_by_key(|left| left.manifest);
    let same = order.chunk_by(|a, b| a.manifest == b.manifest);
    same.map(|same| (same[0].manifest, same.iter().any(|left| fold.keeps(left, at)), same[0].job))
        .collect()
}

fn note(used: &mut Used, listed: &Listed, keeps: bool) {
    let Listed(_, log, outputs) = listed;
    log.iter().for_each(|digest| used.note(*digest, kind::LOG));
    if keeps {
        outputs.iter().for_each(|digest| used.note(*digest, kind::OUTPUT));
    }
}

/// A list of what an attempt left behind; nothing of one that is lost, where it goes on despite that: nobody can learn any more what it
/// named, nor fetch that.
async fn read_manifest(files: &Files, digest: Digest, job: JobId, despite_lost: bool) -> Result<Option<Manifest>, Error> {
    let unread = |source| Error::List {
        what: format!("content {digest}, which lists what job {job} left behind,"),
        source,
    };
    let text = match files.get_bytes(&digest, MAX_BYTES).await {
        Err(store::Error::Missing { .. }) if despite_lost => return Ok(None),
        text => text.map_err(|error| unread(error.into()))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| unread(error.into()))
}

/// What is known of lists; nothing where there is nothing that may be used.
async fn load(kept: &Signed<'_>) -> Option<Bytes> {
    match tokio::time::timeout(PATIENCE, kept.load::<Nothing>()).await {
        Ok(Ok((Nothing {}, text))) => return Some(text),
        Ok(Err(signed::Error::None | signed::Error::Program)) => {}
        Ok(Err(error)) => warn!(
            "what is known of lists of outputs is not used: {}; each list is read",
            chain(&error)
        ),
        Err(_) => warn!("what is known of lists of outputs is not used: the store does not answer; each list is read"),
    }
    None
}

/// Keeps what is known of lists, if that can be: without it, the next pass reads more of them.
async fn keep(kept: &Signed<'_>, before: Option<Bytes>, text: Vec<u8>) {
    let merged = tokio::task::spawn_blocking(move || match before {
        Some(before) => lists::merged(&before, &text),
        None => Ok(text),
    });
    let saved = async {
        let text = merged.await.map_err(std::io::Error::other).flatten();
        let text = text.map_err(|error| signed::Error::Damaged(error.to_string()))?;
        kept.save(&Nothing {}, text).await
    };
    match tokio::time::timeout(PATIENCE, saved).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(
            "what is known of lists of outputs is not kept: {}; the next pass reads them again",
            chain(&error)
        ),
        Err(_) => warn!("what is known of lists of outputs is not kept: the store does not answer; the next pass reads them again"),
    }
}

fn broken(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::List {
        what: "what is known of lists of outputs".to_owned(),
        source,
    }
}
