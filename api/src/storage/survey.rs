//! Looking at everything: the log, the lists that it names, the store.

use std::collections::{HashMap, HashSet};

use bus::{
    files::{self, Entry, Files, PackagesEntry, marks::Shard},
    ids::{Digest, JobId},
    manifest::Manifest,
    tree::MAX_TREE_BYTES,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Error,
    fold::{Fold, Left, digests_in},
    keeping::Moment,
    reading::{LogRead, Source, read_log},
    top::top,
    used::{Ordered, Used},
};
use crate::view::{Amount, BatchUse, JobUse, Uses};

/// Lists that are read at once.
const LISTS: usize = 16;
/// The largest list of outputs that is read, in bytes.
const MAX_MANIFEST_BYTES: usize = 64 << 20;
/// An object that is not kept by content, and is at most so large, is an index: what it names is used.
const MAX_INDEX_BYTES: u64 = 1 << 20;
/// Except what stands below these: the watcher's snapshot names jobs, and a checkpoint whatever it is made of.
const NO_INDEX: [&str; 2] = ["watcher/", "collector/"];

/// What a content is there for.
mod kind {
    pub(super) const LIVE: u8 = 1;
    pub(super) const OUTPUT: u8 = 2;
    pub(super) const LOG: u8 = 4;
    pub(super) const CACHE: u8 = 8;
    pub(super) const ENDED: u8 = 16;
}

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
    let mut used = named(&fold, at);
    walk_trees(files, &fold, at, &mut used).await?;
    let lost = walk_manifests(files, &fold, at, &mut used).await?;
    let (jobs, batches) = top(&fold, at);
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
    list(files, &used.ordered(), &mut survey, |used| at.forgets(used)).await?;
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
        Err(files::Error::Missing { .. } | files::Error::TooLarge { .. }) if kinds & kind::LIVE == 0 => Ok(HashSet::new()),
        Err(source) => Err(Error::List {
            what: format!("content {digest}, which lists the inputs of a job,"),
            source: source.into(),
        }),
    }
}

/// Notes what attempts left behind, each list once; returns whose lists are lost, where it goes on despite that.
async fn walk_manifests(files: &Files, fold: &Fold, at: &Moment, used: &mut Used) -> Result<Vec<JobId>, Error> {
    let mut order: Vec<&Left> = fold.left.iter().collect();
    order.sort_unstable_by_key(|left| left.manifest);
    let mut order = order.into_iter().peekable();
    let manifests = std::iter::from_fn(move || {
        let first = order.next()?;
        let mut keeps = fold.keeps(first, at);
        while let Some(same) = order.next_if(|left| left.manifest == first.manifest) {
            keeps |= fold.keeps(same, at);
        }
        Some((first.manifest, keeps, first.job))
    });
    let mut read = stream::iter(manifests)
        .map(|(digest, keeps, job)| async move {
            let manifest = read_manifest(files, digest, job, at.keeping.despite_lost).await?;
            Ok::<_, Error>(manifest.map(|manifest| (keeps, manifest)).ok_or(job))
        })
        .buffer_unordered(LISTS);
    let mut lost = Vec::new();
    while let Some(read) = read.try_next().await? {
        let (keeps, manifest) = match read {
            Ok(read) => read,
            Err(job) => {
                lost.push(job);
                continue;
            }
        };
        for segment in &manifest.log {
            used.note(segment.sha256, kind::LOG);
        }
        for file in manifest.outputs.iter().filter(|_| keeps) {
            used.note(file.sha256, kind::OUTPUT);
        }
    }
    Ok(lost)
}

/// A list of what an attempt left behind; nothing of one that is lost, where it goes on despite that: nobody can learn any more what it
/// named, nor fetch that.
async fn read_manifest(files: &Files, digest: Digest, job: JobId, despite_lost: bool) -> Result<Option<Manifest>, Error> {
    let unread = |source| Error::List {
        what: format!("content {digest}, which lists what job {job} left behind,"),
        source,
    };
    let text = match files.get_bytes(&digest, MAX_MANIFEST_BYTES).await {
        Err(files::Error::Missing { .. }) if despite_lost => return Ok(None),
        text => text.map_err(|error| unread(error.into()))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| unread(error.into()))
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
