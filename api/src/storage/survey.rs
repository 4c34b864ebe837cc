//! Looking at everything: the log, the lists that it names, the store.

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
    Error, aside,
    fold::{Fold, digests_in},
    keeping::Moment,
    manifests::walk_manifests,
    reading::{LogRead, Source, read_log},
    top::top,
    used::{Ordered, Used, kind},
};

/// Lists that are read at once.
const LISTS: usize = 16;
/// An object that is not kept by content, and is at most so large, is an index: what it names is used.
const MAX_INDEX_BYTES: u64 = 1 << 20;
/// Except what stands below these: the watcher's snapshot names jobs, and the collector's own objects whatever they are made of.
const NO_INDEX: [&str; 2] = ["watcher/", "collector/"];

/// A content that nothing refers to.
#[derive(Debug, Clone)]
pub(super) struct Unused {
    pub(super) size: u64,
    pub(super) tag: Option<String>,
}

/// What there is, and what of it is used.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) all: Amount,
    pub(super) uses: Uses,
    pub(super) other: Amount,
    /// What nothing refers to, by shard.
    pub(super) unused: HashMap<u8, HashMap<Digest, Unused>>,
    pub(super) oldest_claim: Option<(JobId, DateTime<Utc>)>,
    /// Jobs whose lists of outputs are lost.
    pub(super) lost: Vec<JobId>,
    /// Indices of packages that nobody has used for long: what they name counts as unused.
    pub(super) forgotten: Vec<String>,
    /// The jobs that left the most.
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

/// Looks at everything. What is stored, or named, while this goes on may be seen or not. The log must be whole.
pub(super) async fn survey(source: &Source<'_>) -> Result<Survey, Error> {
    let LogRead { fold, last, read } = read_log(source).await?;
    let (files, at) = (source.files, &source.at);
    let (all, then) = (Arc::clone(&fold), *at);
    let mut used = aside(move || named(&all, &then)).await?;
    walk_trees(files, &fold, at, &mut used).await?;
    let (used, lost) = walk_manifests(source, &fold, used).await?;
    let (all, then) = (Arc::clone(&fold), *at);
    let ((jobs, batches), used) = aside(move || (top(&all, &then), used.ordered())).await?;
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

/// What the log names itself.
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

/// Notes what lists of inputs name, each list once.
async fn walk_trees(files: &Files, fold: &Fold, at: &Moment, used: &mut Used) -> Result<(), Error> {
    let mut trees = Used::default();
    for digest in fold.live().flat_map(|inputs| inputs.trees.iter()) {
        trees.note(*digest, kind::LIVE);
    }
    for (digest, _) in fold.ended(at).filter(|(_, tree)| *tree) {
        trees.note(digest, kind::ENDED);
    }
    // What an event names that cannot be read may be a list, or anything else.
    for digest in &fold.odd {
        trees.note(*digest, kind::CACHE);
    }
    let mut read = stream::iter(trees.ordered())
        .map(|(digest, kinds)| async move { Ok::<_, Error>((kinds, read_tree(files, digest, kinds).await?)) })
        .buffer_unordered(LISTS);
    while let Some((kinds, named)) = read.try_next().await? {
        for digest in named {
            used.note(digest, kinds);
        }
    }
    Ok(())
}

/// What a list names, as it is written, so that a later version's keeps its contents too.
async fn read_tree(files: &Files, digest: Digest, kinds: u8) -> Result<HashSet<Digest>, Error> {
    match files.get_bytes(&digest, MAX_TREE_BYTES).await {
        Ok(text) => Ok(digests_in(&text).collect()),
        // Nothing that runs, or is to run, needs it: there is nothing left to keep.
        Err(store::Error::Missing { .. } | store::Error::TooLarge { .. }) if kinds & kind::LIVE == 0 => Ok(HashSet::new()),
        Err(source) => Err(Error::List {
            what: format!("content {digest}, which lists the inputs of a job,"),
            source: source.into(),
        }),
    }
}

/// Goes through the store, and tells what is used from what is not.
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

/// What stands in an index. In one that went meanwhile stands nothing.
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
