//! The manifests of attempts: each is read once, and small ones are cached in the store.

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
    Error, blocking,
    fold::{Fold, Left},
    lists::{self, Lines, Listed, Text, Wanted},
    reading::Source,
    retention::Moment,
    signed::{self, Nothing, Signed},
    used::{Used, kind},
};
use crate::error::chain;

/// Manifests that are read at the same time.
const AT_ONCE: usize = 16;
/// The largest manifest that is read, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// How long the store may take to load or save the cache; after that, every manifest is read, now or in the next pass.
const PATIENCE: Duration = Duration::from_secs(120);
/// The cache is written again once this many percent of it are new.
const NEW_HUNDREDTHS: usize = 1;

/// Adds the contents of all manifests; returns the jobs whose manifests are lost, if `despite_lost`.
pub(super) async fn walk_manifests(source: &Source<'_>, fold: &Arc<Fold>, used: Used) -> Result<(Used, Vec<JobId>), Error> {
    let despite_lost = source.at.retention.despite_lost;
    let kept = Signed {
        files: source.files,
        key: source.key,
        name: lists::NAME,
    };
    // With `despite_lost`, every manifest is read, to find out which are lost.
    let before = if despite_lost { None } else { load(&kept).await };
    let (at, fold, text) = (source.at, Arc::clone(fold), before.clone());
    let (mut used, all, unknown) = blocking(move || note_known(&fold, &at, used, text.as_ref())).await?;
    let (mut new, mut lost) = (0, Vec::new());
    let mut text = Text::begin().map_err(|error| broken(error.into()))?;
    let files = source.files;
    // In the order in which they are written.
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

/// Adds the contents of cached manifests; returns how many manifests there are, and those that are not cached.
fn note_known(fold: &Fold, at: &Moment, mut used: Used, text: Option<&Bytes>) -> (Used, usize, Vec<Wanted>) {
    let wanted = wanted(fold, at);
    let all = wanted.len();
    let Some(text) = text else { return (used, all, wanted) };
    let lines = Lines::of(text);
    match lines.and_then(|lines| lists::known(&wanted, lines, |listed, keeps| note(&mut used, &listed, keeps))) {
        Ok(unknown) => (used, all, unknown),
        Err(error) => {
            warn!("cannot read the cache of manifests ({error}); reading every manifest");
            (used, all, wanted)
        }
    }
}

/// Each manifest once, in order.
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

/// Reads a manifest; `None` if it is lost and `despite_lost`: its outputs can no longer be fetched.
async fn read_manifest(files: &Files, digest: Digest, job: JobId, despite_lost: bool) -> Result<Option<Manifest>, Error> {
    let unread = |source| Error::List {
        what: format!("content {digest}, the manifest of job {job}"),
        source,
    };
    let text = match files.get_bytes(&digest, MAX_BYTES).await {
        Err(store::Error::Missing { .. }) if despite_lost => return Ok(None),
        text => text.map_err(|error| unread(error.into()))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| unread(error.into()))
}

/// The cache, if there is one that may be used.
async fn load(kept: &Signed<'_>) -> Option<Bytes> {
    match tokio::time::timeout(PATIENCE, kept.load::<Nothing>()).await {
        Ok(Ok((Nothing {}, text))) => return Some(text),
        Ok(Err(signed::Error::None | signed::Error::Program)) => {}
        Ok(Err(error)) => warn!("the cache of manifests is not used: {}; reading every manifest", chain(&error)),
        Err(_) => warn!("the cache of manifests is not used: the store does not answer; reading every manifest"),
    }
    None
}

/// Saves the cache. If that fails, the next pass reads more manifests.
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
            "the cache of manifests cannot be saved: {}; the next pass reads them again",
            chain(&error)
        ),
        Err(_) => warn!("the cache of manifests cannot be saved: the store does not answer; the next pass reads them again"),
    }
}

fn broken(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::List {
        what: "the cache of manifests".to_owned(),
        source,
    }
}
