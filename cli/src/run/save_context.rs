//! What is known on this machine about a job's inputs, so that its outputs can be saved.

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
    missing_files::{Known, LastWords, Missed},
    plan::{
        Plan,
        original_path::{Home, Within},
    },
};
use crate::saving::{Asked, Sent};

/// What a job was given of this machine.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// What of it stands elsewhere there.
    pub(super) homes: Vec<Home>,
    /// The directory that stands for the job's own: its outputs are saved there.
    pub(super) base: PathBuf,
    /// Where what it leaves may go.
    pub(super) within: Within,
    /// What the user asked for by name, of what others would run unasked.
    pub(super) asked: Asked,
    /// What it was given, to tell what is here as it was sent.
    pub(super) given: Sent,
    /// The paths of all of it, and where they are meant from; nothing where that is not known, or the user left things out, and knows.
    known: Option<Known>,
}

impl Brought {
    pub(super) fn of(args: &RunArgs, plan: &mut Plan, cwd: &Path) -> Self {
        let paths = plan.inputs.iter().map(|input| &input.path);
        let paths = paths.chain(plan.links.iter().map(|link| &link.path)).chain(&plan.dirs);
        let kept = args.no_input.iter().filter_map(|path| path.to_str());
        let sent = paths.map(ToString::to_string).chain(kept.map(ToOwned::to_owned)).collect();
        Self {
            homes: std::mem::take(&mut plan.homes),
            base: plan.root.path.clone(),
            within: std::mem::take(&mut plan.within),
            asked: args.resolved.asked.clone(),
            given: Sent::default(),
            known: args.files.exclude.is_empty().then(|| known(args, plan, cwd, sent)),
        }
    }

    /// What a job was given that this command did not send: one that is repeated, or was there already. Where that cannot be had, nothing
    /// here counts as sent, and nothing here is lost.
    pub(crate) async fn of_job(client: &Client, job: JobId) -> Self {
        Self {
            given: given(client, job).await.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// What was not, and the job missed.
    pub(super) fn missed(&self, words: &LastWords) -> Vec<Missed> {
        self.known.as_ref().map_or_else(Vec::new, |known| words.missed(known))
    }
}

fn known(args: &RunArgs, plan: &Plan, cwd: &Path, sent: BTreeSet<String>) -> Known {
    let cwd = cwd.canonicalize().unwrap_or_else(|_| cwd.to_owned());
    let script = args.words.first().filter(|_| !args.program).map(|script| cwd.join(script));
    Known {
        root: cwd.join(&plan.root.path),
        script_dir: script.and_then(|script| script.canonicalize().ok()?.parent().map(Path::to_owned)),
        cwd,
        sent,
    }
}

async fn given(client: &Client, job: JobId) -> anyhow::Result<Sent> {
    let history: model::History = client.get(&format!("/v1/jobs/{job}/history"), &()).await?;
    let submitted = history.events.into_iter().find(|event| event.r#type.starts_with("job.submitted."));
    let spec = submitted.and_then(|event| serde_json::from_value::<JobSpec>(event.data.get("spec")?.clone()).ok());
    let Some(spec) = spec else { return Ok(Sent::default()) };
    let tree = match &spec.tree {
        Some(reference) => {
            let request = client.request(Method::GET, &format!("/v1/files/{}", reference.sha256));
            let json = whole(client.send(request).await?, MAX_TREE_BYTES).await?;
            Tree::read(&json, &spec.inputs)?
        }
        None => Tree::default(),
    };
    Ok(Sent::new(&spec.inputs, &tree))
}
