//! Staging: laying an attempt's input files into its workspace.

mod files;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
};

use bus::spec::{
    InputFile, JobSpec, RelPath,
    tree::{Content, InvalidTree, Link, MAX_TREE_BYTES, Tree, TreeRef},
};
use store::Files;

use self::files::Staging;
use crate::{
    attempt::workspace::{STDIN, Workspace},
    errors::chain,
    input_cache::InputCache,
    inputs::{StagedFile, StagedInputs},
    patience::patiently,
};

/// Why an attempt's inputs could not be staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The worker's disk.
    #[error("cannot stage the job's files in {path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The store.
    #[error("cannot fetch the input {path}: {}", chain(source))]
    Fetch {
        /// The input.
        path: String,
        /// What happened.
        source: store::Error,
    },
    /// The thread for it.
    #[error("cannot stage the job's files: the runner failed at it")]
    Thread,
    /// The list of inputs is not what the job says.
    #[error(transparent)]
    List(InvalidTree),
}

/// Stages a job's inputs in its work directory, each verified against its hash, and its standard input beside that directory. Returns
/// what was staged where.
///
/// # Errors
/// If the store lacks one, or the disk does not take it.
pub(crate) async fn stage(store: &Files, cache: &InputCache, workspace: &Workspace, spec: &JobSpec) -> Result<StagedInputs, Error> {
    if let Some(stdin) = &spec.stdin {
        Staging::new(store, cache, &workspace.root)
            .files(vec![standard_input(*stdin)?])
            .await?;
    }
    let tree = match &spec.tree {
        Some(reference) => list(store, reference, &spec.inputs).await?,
        None => Tree::default(),
    };
    let work = &workspace.work;
    let inputs: Vec<InputFile> = spec.inputs.iter().chain(&tree.files).cloned().collect();
    make_dirs(work, tree.dirs.iter().chain(&spec.dir), &inputs).await?;
    let files = Staging::new(store, cache, work).files(inputs).await?;
    if tree.links.is_empty() && tree.dirs.is_empty() {
        return Ok(StagedInputs {
            files,
            ..StagedInputs::default()
        });
    }
    let work = work.clone();
    blocking(move || stage_links(&work, files, tree)).await
}

/// What a job reads from standard input, as a file beside its work directory.
fn standard_input(content: Content) -> Result<InputFile, Error> {
    let path = STDIN.parse().map_err(|_| Error::Thread)?;
    Ok(InputFile {
        path,
        sha256: content.sha256,
        size: content.size,
        executable: false,
        mode: None,
        modified_ms: None,
    })
}

/// Does work that waits for the disk or takes long on another thread, so that one job's inputs do not delay other jobs.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Thread)?
}

/// Creates the listed directories, and the parent directories of the inputs.
async fn make_dirs<'a>(work: &Path, listed: impl Iterator<Item = &'a RelPath>, inputs: &[InputFile]) -> Result<(), Error> {
    let parents = inputs.iter().filter_map(|input| Path::new(input.path.as_str()).parent());
    let named: BTreeSet<&Path> = listed.map(|dir| Path::new(dir.as_str())).chain(parents).collect();
    let dirs: Vec<PathBuf> = named
        .into_iter()
        .filter(|dir| !dir.as_os_str().is_empty())
        .map(|dir| work.join(dir))
        .collect();
    if dirs.is_empty() {
        return Ok(());
    }
    blocking(move || {
        for path in dirs {
            std::fs::create_dir_all(&path).map_err(|source| Error::Disk { path, source })?;
        }
        Ok(())
    })
    .await
}

/// Stages the links, and returns all that was staged.
fn stage_links(work: &Path, mut files: HashMap<PathBuf, StagedFile>, tree: Tree) -> Result<StagedInputs, Error> {
    // Last, so that no file is written through one.
    for link in &tree.links {
        stage_link(work, link).map_err(|source| Error::Disk {
            path: work.join(link.path.as_str()),
            source,
        })?;
    }
    // What is reached by a link is as unchanged as the file itself.
    let reached = tree.links.iter().filter_map(|link| {
        let file = files.get(Path::new(&link.leads_to()?))?;
        Some((PathBuf::from(link.path.as_str()), *file))
    });
    let reached: Vec<_> = reached.collect();
    files.extend(reached);
    let links = tree.links.into_iter().map(|link| (PathBuf::from(link.path.as_str()), link.target));
    Ok(StagedInputs {
        files,
        links: links.collect(),
        dirs: tree.dirs.iter().map(|dir| PathBuf::from(dir.as_str())).collect(),
    })
}

async fn list(files: &Files, reference: &TreeRef, beside: &[InputFile]) -> Result<Tree, Error> {
    let json = patiently("fetch the list of inputs", || files.get_bytes(&reference.sha256, MAX_TREE_BYTES)).await;
    let json = json.map_err(|source| Error::Fetch {
        path: "list of all of them".to_owned(),
        source,
    })?;
    let beside = beside.to_vec();
    blocking(move || Tree::read(&json, &beside).map_err(Error::List)).await
}

fn stage_link(work: &Path, link: &Link) -> io::Result<()> {
    let path = work.join(link.path.as_str());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::os::unix::fs::symlink(&link.target, path)
}
