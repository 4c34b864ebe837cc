//! Looking at everything: the log, the lists that it names, the store.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bus::{
    files::{self, Entry, Files, PackagesEntry, marks::Shard},
    ids::{Digest, JobId},
    manifest::Manifest,
    stream::{
        EVENTS,
        follow::Follower,
        inspect::payload_at,
        whole::{Extent, Gap, Reading},
    },
    tree::MAX_TREE_BYTES,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Error, Keeping,
    fold::{Fold, Left, digests_in},
};
use crate::view::{Amount, Uses};

/// How long the log may stand still while it is read.
const STILL: Duration = Duration::from_secs(30);
/// Messages that are taken at once.
const CHUNK: usize = 512;
/// Lists that are read at once.
const LISTS: usize = 16;
/// The largest list of outputs that is read, in bytes.
const MAX_MANIFEST_BYTES: usize = 64 << 20;
/// An object that is not kept by content, and is at most so large, is an index: what it names is used.
const MAX_INDEX_BYTES: u64 = 1 << 20;
/// Except what stands below this: the watcher's snapshot names jobs.
const NO_INDEX: &str = "watcher/";

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
    /// What is left of jobs whose outputs have not expired, or whose logs are there.
    pub(super) left: Vec<(Left, u64)>,
    pub(super) events: u64,
    /// The last sequence of the log that was read.
    pub(super) last: u64,
}

/// Looks at everything. What is stored, or named, while this goes on may be seen or not. The log must be whole, up to at least the
/// sequence that was `seen` before.
pub(super) async fn survey(
    js: &async_nats::jetstream::Context,
    files: &Files,
    keeping: Keeping,
    now: DateTime<Utc>,
    seen: u64,
) -> Result<Survey, Error> {
    let mut fold = Fold::new(keeping, now);
    let last = read_log(js, &mut fold, seen).await?;
    let mut used = named(&fold);
    walk_trees(files, &fold, &mut used).await?;
    let lost = walk_manifests(files, &fold, keeping.despite_lost, &mut used).await?;
    let mut survey = Survey {
        all: Amount::default(),
        uses: Uses::default(),
        other: Amount::default(),
        unused: HashMap::new(),
        oldest_claim: fold.oldest_claim(),
        lost,
        forgotten: Vec::new(),
        left: Vec::new(),
        events: fold.events,
        last,
    };
    let size = |left: &Left| left.log + left.outputs.filter(|_| fold.keeps(left)).unwrap_or(0);
    survey.left = fold.left.iter().map(|left| (*left, size(left))).collect();
    drop(fold);
    list(files, &used, &mut survey, |used| keeping.forgets(used, now)).await?;
    Ok(survey)
}

/// Reads the log up to what is its end now, and returns its last sequence. What cannot be delivered is read as it is stored; where
/// anything is missing, nothing can be concluded.
async fn read_log(js: &async_nats::jetstream::Context, fold: &mut Fold, seen: u64) -> Result<u64, Error> {
    let stream = js.get_stream(EVENTS).await.map_err(|error| Error::Log(error.into()))?;
    let extent = {
        let state = &stream.cached_info().state;
        Extent {
            first: state.first_sequence,
            last: state.last_sequence,
            messages: state.messages,
        }
    };
    extent.check(seen)?;
    let mut follower = Follower::new(js, EVENTS, Vec::new(), 0);
    let mut reading = Reading::default();
    while reading.last() < extent.last {
        let chunk = tokio::time::timeout(STILL, follower.chunk(CHUNK)).await;
        for message in chunk.map_err(|error| Error::Log(error.into()))? {
            for unread in reading.take(message.sequence) {
                let payload = payload_at(js, unread).await.map_err(|error| Error::Log(error.into()))?;
                let missing = Gap::Missing {
                    count: 1,
                    near: Some(unread),
                };
                fold.take_unreadable(&payload.ok_or(missing)?);
            }
            fold.take(&message.subject, message.sequence, &message.payload, message.stored_at);
        }
    }
    Ok(reading.last())
}

/// What the log names itself.
fn named(fold: &Fold) -> HashMap<Digest, u8> {
    let mut used = HashMap::new();
    let mut note = |digest: Digest, kinds: u8| *used.entry(digest).or_insert(0) |= kinds;
    for inputs in fold.live() {
        inputs.contents.iter().for_each(|digest| note(*digest, kind::LIVE));
    }
    for inputs in fold.ended.values() {
        inputs.contents.iter().for_each(|digest| note(*digest, kind::ENDED));
    }
    fold.named()
        .chain(fold.odd.iter().copied())
        .for_each(|digest| note(digest, kind::CACHE));
    fold.left.iter().for_each(|left| note(left.manifest, kind::LOG));
    used
}

/// Notes what lists of inputs name, each list once.
async fn walk_trees(files: &Files, fold: &Fold, used: &mut HashMap<Digest, u8>) -> Result<(), Error> {
    let mut trees: HashMap<Digest, u8> = HashMap::new();
    for digest in fold.live().filter_map(|inputs| inputs.tree) {
        *trees.entry(digest).or_insert(0) |= kind::LIVE;
    }
    for digest in fold.ended.values().filter_map(|inputs| inputs.tree) {
        *trees.entry(digest).or_insert(0) |= kind::ENDED;
    }
    // What an event names that cannot be read may be a list, or anything else.
    for digest in &fold.odd {
        *trees.entry(*digest).or_insert(0) |= kind::CACHE;
    }
    let mut read = stream::iter(trees)
        .map(|(digest, kinds)| async move { Ok::<_, Error>((kinds, read_tree(files, digest, kinds).await?)) })
        .buffer_unordered(LISTS);
    while let Some((kinds, named)) = read.try_next().await? {
        for digest in named {
            *used.entry(digest).or_insert(0) |= kinds;
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
async fn walk_manifests(files: &Files, fold: &Fold, despite_lost: bool, used: &mut HashMap<Digest, u8>) -> Result<Vec<JobId>, Error> {
    let mut manifests: HashMap<Digest, (bool, JobId)> = HashMap::new();
    for left in &fold.left {
        let (keeps, _) = manifests.entry(left.manifest).or_insert((false, left.job));
        *keeps |= fold.keeps(left);
    }
    let mut read = stream::iter(manifests)
        .map(|(digest, (keeps, job))| async move {
            let unread = |source| Error::List {
                what: format!("content {digest}, which lists what job {job} left behind,"),
                source,
            };
            let text = match files.get_bytes(&digest, MAX_MANIFEST_BYTES).await {
                // Nobody can learn any more what it named, nor fetch that.
                Err(files::Error::Missing { .. }) if despite_lost => return Ok(Err(job)),
                text => text.map_err(|error| unread(error.into()))?,
            };
            let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| unread(error.into()))?;
            Ok::<_, Error>(Ok((keeps, manifest)))
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
            *used.entry(segment.sha256).or_insert(0) |= kind::LOG;
        }
        for file in manifest.outputs.iter().filter(|_| keeps) {
            *used.entry(file.sha256).or_insert(0) |= kind::OUTPUT;
        }
    }
    Ok(lost)
}

/// Goes through the store, and tells what is used from what is not.
async fn list(
    files: &Files,
    used: &HashMap<Digest, u8>,
    survey: &mut Survey,
    forgets: impl Fn(DateTime<Utc>) -> bool,
) -> Result<(), Error> {
    let mut entries = std::pin::pin!(files.entries());
    let mut indices = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let Entry { name, digest, size, tag } = entry;
        let Some(digest) = digest else {
            survey.other.add(size);
            if size <= MAX_INDEX_BYTES && !name.starts_with(NO_INDEX) {
                indices.push(name);
            }
            continue;
        };
        survey.all.add(size);
        match used.get(&digest) {
            Some(kinds) => of(*kinds, &mut survey.uses).add(size),
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
