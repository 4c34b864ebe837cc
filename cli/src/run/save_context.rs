//! What this machine knows about a job's inputs, so that its outputs can be saved.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use bus::{
    ids::JobId,
    spec::{
        JobSpec,
        tree::{MAX_TREE_BYTES, Tree},
    },
};
use client::{Client, bounded::whole};
use reqwest::Method;

use super::{
    RunArgs,
    missing_files::{MissingFile, OutputTail, SentPaths},
    plan::{
        Plan,
        original_path::{OriginalPath, SaveScope},
    },
};
use crate::saving::{NamedOutputs, SentInputs};

/// What this machine knows about a job's inputs.
#[derive(Debug, Default)]
pub(crate) struct SaveContext {
    /// Inputs that have another path in the job's directory than here.
    pub(super) original_paths: Vec<OriginalPath>,
    /// The local directory that corresponds to the job's directory.
    pub(super) base: PathBuf,
    /// Where outputs may be saved.
    pub(super) save_scope: SaveScope,
    /// The automatically used outputs that the user allowed by name.
    pub(super) asked: NamedOutputs,
    /// The inputs of the job, to recognise local files that have not changed since.
    pub(super) inputs_sent: SentInputs,
    /// The paths of all inputs, to explain a missing file. `None` if they are unknown, or if the user excluded files.
    known: Option<SentPaths>,
}

impl SaveContext {
    pub(super) fn of(args: &RunArgs, plan: &mut Plan, cwd: &Path) -> Self {
        let paths = plan.inputs.iter().map(|input| &input.path);
        let paths = paths.chain(plan.links.iter().map(|link| &link.path)).chain(&plan.dirs);
        let kept = args.no_input.iter().filter_map(|path| path.to_str());
        let sent = paths.map(ToString::to_string).chain(kept.map(ToOwned::to_owned)).collect();
        Self {
            original_paths: std::mem::take(&mut plan.original_paths),
            base: plan.root.path.clone(),
            save_scope: std::mem::take(&mut plan.save_scope),
            asked: args.resolved.asked.clone(),
            inputs_sent: SentInputs::default(),
            known: args.files.exclude.is_empty().then(|| known(args, plan, cwd, sent)),
        }
    }

    /// The context of a job that this command did not send: a rerun, or a job that existed already. If its inputs cannot be fetched, no
    /// local file counts as sent, so that none is lost.
    pub(crate) async fn of_job(client: &Client, job: JobId) -> Self {
        Self {
            inputs_sent: inputs_sent(client, job).await.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Files that are here, were not sent, and that the job's output reports as missing.
    pub(super) fn missing(&self, words: &OutputTail) -> Vec<MissingFile> {
        self.known.as_ref().map_or_else(Vec::new, |known| words.missing(known))
    }
}

fn known(args: &RunArgs, plan: &Plan, cwd: &Path, sent: BTreeSet<String>) -> SentPaths {
    let cwd = cwd.canonicalize().unwrap_or_else(|_| cwd.to_owned());
    let script = args.words.first().filter(|_| !args.program).map(|script| cwd.join(script));
    SentPaths {
        root: cwd.join(&plan.root.path),
        script_dir: script.and_then(|script| script.canonicalize().ok()?.parent().map(Path::to_owned)),
        cwd,
        sent,
    }
}

async fn inputs_sent(client: &Client, job: JobId) -> anyhow::Result<SentInputs> {
    let history: model::History = client.get(&format!("/v1/jobs/{job}/history"), &()).await?;
    let submitted = history.events.into_iter().find(|event| event.r#type.starts_with("job.submitted."));
    let spec = submitted.and_then(|event| serde_json::from_value::<JobSpec>(event.data.get("spec")?.clone()).ok());
    let Some(spec) = spec else { return Ok(SentInputs::default()) };
    let tree = match &spec.tree {
        Some(reference) => {
            let request = client.request(Method::GET, &format!("/v1/files/{}", reference.sha256));
            let json = whole(client.send(request).await?, MAX_TREE_BYTES).await?;
            Tree::read(&json, &spec.inputs)?
        }
        None => Tree::default(),
    };
    Ok(SentInputs::new(&spec.inputs, &tree))
}
