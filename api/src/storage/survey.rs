//! A survey: reads the log, the lists that it names, and the store, and finds the unused contents.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bus::{
    ids::{Digest, JobId},
    spec::tree::MAX_TREE_BYTES,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{Amount, BatchUse, JobUse, Uses};
use store::{Entry, Files, PackagesEntry, marks::Shard};

use super::{
    Error, blocking,
    fold::{Fold, digests_in},
    manifests::walk_manifests,
    reading::{LogRead, Source, read_log},
    retention::Moment,
    top::top,
    used::{Ordered, Used, kind},
};

/// Lists that are read at the same time.
const LISTS_IN_FLIGHT: usize = 16;
/// An object that is not a content, and is not larger than this, is an index: the contents that it names are used.
const MAX_INDEX_BYTES: u64 = 1 << 20;
/// Except below these prefixes: the watcher's snapshot, and the objects of storage passes.
const NO_INDEX: [&str; 2] = ["watcher/", "collector/"];

/// A content that nothing refers to.
#[derive(Debug, Clone)]
pub(super) struct Unused {
    pub(super) size: u64,
    pub(super) tag: Option<String>,
}

/// The result of a survey.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) all: Amount,
    pub(super) uses: Uses,
    pub(super) other: Amount,
    /// The unused contents, by shard.
    pub(super) unused: HashMap<u8, HashMap<Digest, Unused>>,
    pub(super) oldest_claim: Option<(JobId, DateTime<Utc>)>,
    /// Jobs whose manifests are lost.
    pub(super) lost: Vec<JobId>,
    /// Indices of packages that were not used for long: the contents that they name count as unused.
    pub(super) forgotten: Vec<String>,
    /// The jobs with the largest outputs and logs.
    pub(super) jobs: Vec<JobUse>,
    /// The batches, likewise.
    pub(super) batches: Vec<BatchUse>,
    /// Events of the log.
    pub(super) events: u64,
    /// Of those, the ones that were read; the others a checkpoint knew.
    pub(super) read: u64,
    /// The last sequence of the log that was read.
    pub(super) last: u64,
}

/// Surveys the store. Contents that are stored or named meanwhile may or may not be seen. No event of the log may be missing.
pub(super) async fn survey(source: &Source<'_>) -> Result<Survey, Error> {
    let LogRead { fold, last, read } = read_log(source).await?;
    let (files, at) = (source.files, &source.at);
    let (all, then) = (Arc::clone(&fold), *at);
    let mut used = blocking(move || named(&all, &then)).await?;
    walk_trees(files, &fold, at, &mut used).await?;
    let (used, lost) = walk_manifests(source, &fold, used).await?;
    let (all, then) = (Arc::clone(&fold), *at);
    let ((jobs, batches), used) = blocking(move || (top(&all, &then), used.ordered())).await?;
    let mut survey = Survey {
        all: Amount::default(),
        uses: Uses::default(),
        other: Amount::default(),
        unused: HashMap::new(),
        oldest_claim: fold.oldest_claim(),
        lost,
        forgotten: Vec::new(),
        jobs,
        batches,
        events: fold.events,
        read,
        last,
    };
    drop(fold);
    list(files, &used, &mut survey, |used| at.forgets(used)).await?;
    Ok(survey)
}

/// The contents that the log itself names.
fn named(fold: &Fold, at: &Moment) -> Used {
    let mut used = Used::default();
    for inputs in fold.live() {
        inputs.contents.iter().for_each(|digest| used.note(*digest, kind::LIVE));
    }
    fold.ended(at).for_each(|(digest, _)| used.note(digest, kind::ENDED));
    fold.named()
        .chain(fold.odd.iter().copied())
        .for_each(|digest| used.note(digest, kind::CACHE));
    fold.left.iter().for_each(|left| used.note(left.manifest, kind::LOG));
    used
}

/// Adds the contents of input trees, each tree once.
async fn walk_trees(files: &Files, fold: &Fold, at: &Moment, used: &mut Used) -> Result<(), Error> {
    let mut trees = Used::default();
    for digest in fold.live().flat_map(|inputs| inputs.trees.iter()) {
        trees.note(*digest, kind::LIVE);
    }
    for (digest, _) in fold.ended(at).filter(|(_, tree)| *tree) {
        trees.note(digest, kind::ENDED);
    }
    // The contents that an undecodable event names may be trees.
    for digest in &fold.odd {
        trees.note(*digest, kind::CACHE);
    }
    let mut read = stream::iter(trees.ordered())
        .map(|(digest, kinds)| async move { Ok::<_, Error>((kinds, read_tree(files, digest, kinds).await?)) })
        .buffer_unordered(LISTS_IN_FLIGHT);
    while let Some((kinds, named)) = read.try_next().await? {
        for digest in named {
            used.note(digest, kinds);
        }
    }
    Ok(())
}

/// The contents that a tree names. It is searched as text, so that a tree of a later version works too.
async fn read_tree(files: &Files, digest: Digest, kinds: u8) -> Result<HashSet<Digest>, Error> {
    match files.get_bytes(&digest, MAX_TREE_BYTES).await {
        Ok(text) => Ok(digests_in(&text).collect()),
        // No job that has not ended needs it.
        Err(store::Error::Missing { .. } | store::Error::TooLarge { .. }) if kinds & kind::LIVE == 0 => Ok(HashSet::new()),
        Err(source) => Err(Error::List {
            what: format!("content {digest}, the list of inputs of a job"),
            source: source.into(),
        }),
    }
}

/// Lists the store, and separates used from unused contents.
async fn list(files: &Files, used: &Ordered, survey: &mut Survey, forgets: impl Fn(DateTime<Utc>) -> bool) -> Result<(), Error> {
    let mut entries = std::pin::pin!(files.entries());
    let mut indices = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let Entry { name, digest, size, tag } = entry;
        let Some(digest) = digest else {
            survey.other.add(size);
            if size <= MAX_INDEX_BYTES && !NO_INDEX.iter().any(|below| name.starts_with(below)) {
                indices.push(name);
            }
            continue;
        };
        survey.all.add(size);
        match used.get(&digest) {
            Some(kinds) => of(kinds, &mut survey.uses).add(size),
            None => {
                let unused = survey.unused.entry(Shard::of(&digest)).or_default();
                unused.insert(digest, Unused { size, tag });
            }
        }
    }
    for name in indices {
        let index = read_index(files, &name).await?;
        if PackagesEntry::read(&name, &index).is_some_and(|entry| forgets(entry.used_at)) {
            survey.forgotten.push(name);
            continue;
        }
        for digest in digests_in(&index).collect::<HashSet<_>>() {
            let found = survey.unused.get_mut(&Shard::of(&digest)).and_then(|shard| shard.remove(&digest));
            if let Some(found) = found {
                survey.uses.caches.add(found.size);
            }
        }
    }
    for unused in survey.unused.values().flat_map(HashMap::values) {
        survey.uses.unused.add(unused.size);
    }
    Ok(())
}

/// Reads an index; empty if it was removed meanwhile.
async fn read_index(files: &Files, name: &str) -> Result<Bytes, Error> {
    let found = files.object(name).await.map_err(|source| Error::List {
        what: format!("the index {name}"),
        source: source.into(),
    })?;
    Ok(found.unwrap_or_default())
}

fn of(kinds: u8, uses: &mut Uses) -> &mut Amount {
    match kinds {
        what if what & kind::LIVE != 0 => &mut uses.live_inputs,
        what if what & kind::OUTPUT != 0 => &mut uses.outputs,
        what if what & kind::LOG != 0 => &mut uses.logs,
        what if what & kind::CACHE != 0 => &mut uses.caches,
        _ => &mut uses.ended_inputs,
    }
}
