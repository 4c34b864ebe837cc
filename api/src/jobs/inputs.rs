//! Whether the store has what jobs name, before they are jobs.

use std::collections::{HashMap, HashSet};

use bus::{
    ids::Digest,
    spec::{
        JobSpec,
        tree::{MAX_TREE_BYTES, Tree, TreeRef},
    },
};
use model::Kind;
use store::{Error, Files};

use crate::error::ApiError;

/// Contents that the store is asked for at once.
const AT_ONCE: usize = 10_000;
/// The most that one refusal lists.
const LISTED: usize = 10_000;

/// Contents that jobs name and the store does not have, and lists of inputs that cannot be laid.
#[derive(Debug, Default)]
pub(crate) struct MissingInputs {
    absent: HashSet<Digest>,
    /// What each list names, each content once.
    trees: HashMap<Digest, Vec<Digest>>,
    /// Why a list is none.
    bad: HashMap<Digest, String>,
}

impl MissingInputs {
    /// The problem of a job that names some of them.
    pub(crate) fn first_of(&self, spec: &JobSpec) -> Option<ApiError> {
        if let Some(why) = spec.tree.and_then(|tree| self.bad.get(&tree.sha256)) {
            return Some(ApiError::new(Kind::Refused, why.clone()));
        }
        if self.absent.is_empty() {
            return None;
        }
        let listed = spec.tree.and_then(|tree| self.trees.get(&tree.sha256));
        let named = spec.contents().chain(listed.into_iter().flatten().copied());
        let mut missing: Vec<_> = named.filter(|sha256| self.absent.contains(sha256)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing.truncate(LISTED);
        (!missing.is_empty()).then(|| ApiError::missing(missing))
    }
}

/// Looks for every content that these jobs name, each once, but those that were stored just now; also for what their lists name.
pub(crate) async fn check_inputs<'a>(
    files: &Files,
    specs: impl IntoIterator<Item = &'a JobSpec>,
    stored: &HashSet<Digest>,
) -> Result<MissingInputs, ApiError> {
    let mut check = InputCheck::new(files, stored.clone());
    check.look(specs).await?;
    Ok(check.found)
}

/// Looks for the contents that jobs name, some jobs after others: each content once.
#[derive(Debug)]
pub(crate) struct InputCheck<'a> {
    files: &'a Files,
    /// What needs no look, or had one.
    known: HashSet<Digest>,
    /// The lists that were looked into, each with the inputs that stand beside it.
    looked: HashSet<(Digest, Digest)>,
    found: MissingInputs,
}

impl<'a> InputCheck<'a> {
    /// Nothing was looked for yet; these contents were stored just now.
    pub(crate) fn new(files: &'a Files, stored: HashSet<Digest>) -> Self {
        Self {
            files,
            known: stored,
            looked: HashSet::new(),
            found: MissingInputs::default(),
        }
    }

    /// What of all that was looked for is not there.
    pub(crate) const fn found(&self) -> &MissingInputs {
        &self.found
    }

    /// Looks for what these jobs name, and what their lists do.
    pub(crate) async fn look<'b>(&mut self, specs: impl IntoIterator<Item = &'b JobSpec>) -> Result<(), ApiError> {
        let (mut named, mut with_trees) = (Vec::new(), Vec::new());
        for spec in specs {
            named.extend(spec.contents().filter(|sha256| self.known.insert(*sha256)));
            if let Some(tree) = spec.tree
                && self.looked.insert((tree.sha256, beside(spec)))
            {
                with_trees.push((tree, spec));
            }
        }
        self.found.absent.extend(missing(self.files, named).await?);
        for (tree, spec) in with_trees {
            // A list that many jobs share is looked into once, unless a job's own inputs may stand in its way.
            let known = self.found.trees.contains_key(&tree.sha256) && spec.inputs.is_empty();
            if known || self.found.absent.contains(&tree.sha256) || self.found.bad.contains_key(&tree.sha256) {
                continue;
            }
            match (self.found.trees.get(&tree.sha256), read(self.files, tree, spec).await?) {
                (_, Err(why)) => drop(self.found.bad.insert(tree.sha256, why)),
                (Some(_), Ok(_)) => {}
                (None, Ok(contents)) => {
                    let new = contents.iter().copied().filter(|sha256| self.known.insert(*sha256)).collect();
                    self.found.absent.extend(missing(self.files, new).await?);
                    self.found.trees.insert(tree.sha256, contents);
                }
            }
        }
        Ok(())
    }
}

/// What tells the inputs that stand beside a list from others.
fn beside(spec: &JobSpec) -> Digest {
    Digest::of(&serde_json::to_vec(&(spec.tree, &spec.inputs)).unwrap_or_default())
}

async fn missing(files: &Files, named: Vec<Digest>) -> Result<HashSet<Digest>, ApiError> {
    let mut missing = HashSet::new();
    for some in named.chunks(AT_ONCE) {
        let asked = files.missing(some).await;
        missing.extend(asked.map_err(|error| ApiError::unavailable("the store cannot be asked for the inputs", &error))?);
    }
    Ok(missing)
}

/// What a list names, each content once; or why it is none that this job's inputs can stand beside.
async fn read(files: &Files, reference: TreeRef, spec: &JobSpec) -> Result<Result<Vec<Digest>, String>, ApiError> {
    let json = match files.get_bytes(&reference.sha256, MAX_TREE_BYTES).await {
        Ok(json) => json,
        Err(error @ Error::TooLarge { .. }) => return Ok(Err(format!("{error}; pack the files into an archive, and send that"))),
        Err(error) => return Err(ApiError::unavailable("the list of inputs cannot be read", &error)),
    };
    let tree = match Tree::read(&json, &spec.inputs) {
        Ok(tree) => tree,
        Err(why) => return Ok(Err(why.to_string())),
    };
    let (files, bytes) = (tree.files.len() as u64, tree.files.iter().map(|file| file.size).sum::<u64>());
    if (files, bytes, json.len() as u64) != (reference.files, reference.bytes, reference.size) {
        return Ok(Err(format!(
            "the list of inputs {} is of {files} files with {bytes} bytes, and the job says {} with {}; say what it is",
            reference.sha256, reference.files, reference.bytes
        )));
    }
    let mut contents: Vec<Digest> = tree.files.iter().map(|file| file.sha256).collect();
    contents.sort_unstable();
    contents.dedup();
    Ok(Ok(contents))
}
