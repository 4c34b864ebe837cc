//! Checks that the store has the inputs of new jobs.

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

/// Contents in one question to the store.
const AT_ONCE: usize = 10_000;
/// The most contents that one problem lists.
const MAX_LISTED: usize = 10_000;

/// Contents that jobs name and the store does not have, and invalid input trees.
#[derive(Debug, Default)]
pub(crate) struct MissingInputs {
    absent: HashSet<Digest>,
    /// The contents of each tree, each once.
    trees: HashMap<Digest, Vec<Digest>>,
    /// Why a tree is invalid.
    invalid: HashMap<Digest, String>,
}

impl MissingInputs {
    /// The problem of a job that names one of them.
    pub(crate) fn first_of(&self, spec: &JobSpec) -> Option<ApiError> {
        if let Some(why) = spec.tree.and_then(|tree| self.invalid.get(&tree.sha256)) {
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
        missing.truncate(MAX_LISTED);
        (!missing.is_empty()).then(|| ApiError::missing(missing))
    }
}

/// Looks up every content that these jobs and their input trees name, each once, except those that were `stored` just now.
pub(crate) async fn check_inputs<'a>(
    files: &Files,
    specs: impl IntoIterator<Item = &'a JobSpec>,
    stored: &HashSet<Digest>,
) -> Result<MissingInputs, ApiError> {
    let mut check = InputCheck::new(files, stored.clone());
    check.add(specs).await?;
    Ok(check.found)
}

/// Looks up the inputs of jobs in several steps, each content once.
#[derive(Debug)]
pub(crate) struct InputCheck<'a> {
    files: &'a Files,
    /// Contents that were looked up, or stored just now.
    known: HashSet<Digest>,
    /// The trees that were checked, each with the inputs beside it.
    checked: HashSet<(Digest, Digest)>,
    found: MissingInputs,
}

impl<'a> InputCheck<'a> {
    /// A check that knows that these contents were `stored` just now.
    pub(crate) fn new(files: &'a Files, stored: HashSet<Digest>) -> Self {
        Self {
            files,
            known: stored,
            checked: HashSet::new(),
            found: MissingInputs::default(),
        }
    }

    /// What was found to be missing so far.
    pub(crate) const fn found(&self) -> &MissingInputs {
        &self.found
    }

    /// Looks up the contents that these jobs and their trees name.
    pub(crate) async fn add<'b>(&mut self, specs: impl IntoIterator<Item = &'b JobSpec>) -> Result<(), ApiError> {
        let (mut named, mut with_trees) = (Vec::new(), Vec::new());
        for spec in specs {
            named.extend(spec.contents().filter(|sha256| self.known.insert(*sha256)));
            if let Some(tree) = spec.tree
                && self.checked.insert((tree.sha256, inputs_key(spec)))
            {
                with_trees.push((tree, spec));
            }
        }
        self.found.absent.extend(missing(self.files, named).await?);
        for (tree, spec) in with_trees {
            // A tree that many jobs share is checked once, unless a job's own inputs may collide with its paths.
            let known = self.found.trees.contains_key(&tree.sha256) && spec.inputs.is_empty();
            if known || self.found.absent.contains(&tree.sha256) || self.found.invalid.contains_key(&tree.sha256) {
                continue;
            }
            match (self.found.trees.get(&tree.sha256), read_tree(self.files, tree, spec).await?) {
                (_, Err(why)) => drop(self.found.invalid.insert(tree.sha256, why)),
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

/// A key for the tree and the inputs of a job.
fn inputs_key(spec: &JobSpec) -> Digest {
    Digest::of(&serde_json::to_vec(&(spec.tree, &spec.inputs)).unwrap_or_default())
}

async fn missing(files: &Files, named: Vec<Digest>) -> Result<HashSet<Digest>, ApiError> {
    let mut missing = HashSet::new();
    for some in named.chunks(AT_ONCE) {
        let asked = files.missing(some).await;
        missing.extend(asked.map_err(|error| ApiError::unavailable("cannot look up the inputs in the store", &error))?);
    }
    Ok(missing)
}

/// The contents of a tree, each once; or why it is invalid together with this job's inputs.
async fn read_tree(files: &Files, reference: TreeRef, spec: &JobSpec) -> Result<Result<Vec<Digest>, String>, ApiError> {
    let json = match files.get_bytes(&reference.sha256, MAX_TREE_BYTES).await {
        Ok(json) => json,
        Err(error @ Error::TooLarge { .. }) => return Ok(Err(format!("{error}; pack the files into an archive, and submit that"))),
        Err(error) => return Err(ApiError::unavailable("cannot read the list of inputs", &error)),
    };
    let tree = match Tree::read(&json, &spec.inputs) {
        Ok(tree) => tree,
        Err(why) => return Ok(Err(why.to_string())),
    };
    let (files, bytes) = (tree.files.len() as u64, tree.files.iter().map(|file| file.size).sum::<u64>());
    if (files, bytes, json.len() as u64) != (reference.files, reference.bytes, reference.size) {
        return Ok(Err(format!(
            "the list of inputs {} has {files} files with {bytes} bytes, and the job says {} files with {} bytes; correct the job",
            reference.sha256, reference.files, reference.bytes
        )));
    }
    let mut contents: Vec<Digest> = tree.files.iter().map(|file| file.sha256).collect();
    contents.sort_unstable();
    contents.dedup();
    Ok(Ok(contents))
}
