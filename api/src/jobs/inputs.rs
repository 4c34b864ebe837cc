//! Whether the store has what jobs name, before they are jobs.

use std::collections::{HashMap, HashSet};

use bus::{
    files::{Error, Files},
    ids::Digest,
    spec::JobSpec,
    tree::{MAX_TREE_BYTES, Tree, TreeRef},
};

use crate::error::{Kind, Problem};

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
    pub(crate) fn first_of(&self, spec: &JobSpec) -> Option<Problem> {
        if let Some(why) = spec.tree.and_then(|tree| self.bad.get(&tree.sha256)) {
            return Some(Problem::new(Kind::Refused, why.clone()));
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
        (!missing.is_empty()).then(|| Problem::missing(missing))
    }
}

/// Looks for every content that these jobs name, each once, but those that were stored just now; also for what their lists name.
pub(crate) async fn check_inputs<'a>(
    files: &Files,
    specs: impl IntoIterator<Item = &'a JobSpec>,
    stored: &HashSet<Digest>,
) -> Result<MissingInputs, Problem> {
    let mut named = HashSet::new();
    let mut with_trees = Vec::new();
    for spec in specs {
        named.extend(spec.contents().filter(|sha256| !stored.contains(sha256)));
        with_trees.extend(spec.tree.map(|tree| (tree, spec)));
    }
    let mut found = MissingInputs {
        absent: missing(files, named.iter().copied().collect()).await?,
        ..MissingInputs::default()
    };
    for (tree, spec) in with_trees {
        // A list that many jobs share is looked into once, unless a job's own inputs may stand in its way.
        let known = found.trees.contains_key(&tree.sha256) && spec.inputs.is_empty();
        if known || found.absent.contains(&tree.sha256) || found.bad.contains_key(&tree.sha256) {
            continue;
        }
        match (found.trees.get(&tree.sha256), read(files, tree, spec).await?) {
            (_, Err(why)) => drop(found.bad.insert(tree.sha256, why)),
            (Some(_), Ok(_)) => {}
            (None, Ok(contents)) => {
                let new = contents
                    .iter()
                    .copied()
                    .filter(|sha256| named.insert(*sha256) && !stored.contains(sha256));
                found.absent.extend(missing(files, new.collect()).await?);
                found.trees.insert(tree.sha256, contents);
            }
        }
    }
    Ok(found)
}

async fn missing(files: &Files, named: Vec<Digest>) -> Result<HashSet<Digest>, Problem> {
    let mut missing = HashSet::new();
    for some in named.chunks(AT_ONCE) {
        let asked = files.missing(some).await;
        missing.extend(asked.map_err(|error| Problem::unavailable("the store cannot be asked for the inputs", &error))?);
    }
    Ok(missing)
}

/// What a list names, each content once; or why it is none that this job's inputs can stand beside.
async fn read(files: &Files, reference: TreeRef, spec: &JobSpec) -> Result<Result<Vec<Digest>, String>, Problem> {
    let json = match files.get_bytes(&reference.sha256, MAX_TREE_BYTES).await {
        Ok(json) => json,
        Err(error @ Error::TooLarge { .. }) => return Ok(Err(format!("{error}; pack the files into an archive, and send that"))),
        Err(error) => return Err(Problem::unavailable("the list of inputs cannot be read", &error)),
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
