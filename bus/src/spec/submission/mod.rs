//! What a user or a service hands in, and how it becomes a job or a refusal that says what to change.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    grid::secrets,
    ids::{JobId, Queue},
    output::patterns,
    spec::{
        ExecutorKind, InputFile, JobSpec, Origin, Priority, Refusal, RelPath, Resources,
        dependencies::Dependencies,
        input::check_paths,
        is_false,
        policy::{Retry, Start},
        tree::{Content, MAX_TREE_BYTES, TreeRef},
    },
};

mod checks;

pub use self::checks::check_id;
pub(crate) use self::checks::is_image;
use self::checks::{check_command, check_dir, check_env, check_image, check_labels, check_limits, check_policies, gather, runtime, token};

/// The largest job, as JSON, in bytes: an event is small, and files are referenced.
pub const MAX_SPEC_BYTES: usize = 512 << 10;
/// The largest file that a submission may carry in itself, in bytes.
pub const MAX_INLINE_BYTES: usize = 256 << 10;
/// The least memory that a job may ask for: below it, no interpreter starts.
pub const MIN_MEMORY_BYTES: u64 = 4 << 20;
/// The most jobs that one may wait for.
pub const MAX_DEPENDENCIES: usize = 100;
/// The most retries, and the most attempts that may be lost.
pub const MAX_TRIES: u32 = 1_000;
/// The longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// One job, as it is handed in over HTTP or on `rgrid.submit.<namespace>.<queue>`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The program or script, and its arguments, each exactly as the command is to see it.
    pub command: Vec<String>,
    /// The interpreter that the command is handed to (`python`, `node:22`, `bash`, …); absent: the command is a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The container image to run in; requires Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The executor that must be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorKind>,
    /// What to call it in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The packages that it needs, installed before it starts; absent: what its runtime has by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,
    /// Files that are in the store already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
    /// More inputs, as a list in the store; for many, and for links and directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeRef>,
    /// The directory, from the work directory, in which the command starts; absent: the work directory itself. Outputs are found in all of
    /// the work directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<RelPath>,
    /// What its command reads from standard input; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Content>,
    /// Which of the files that it makes or changes are its outputs, as globs from its work directory; absent: all; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<String>>,
    /// How long its outputs are kept after its end, in milliseconds; absent: as long as the grid keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_outputs_ms: Option<u64>,
    /// Small text files that come with the submission; they are stored before the job is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InlineFile>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secrets of the namespace: the variable, and the secret's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// What it asks of a worker; absent: one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How long one attempt may run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long it may wait for a worker each time that it waits, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// How long all of it may take, waiting and retries included, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout_ms: Option<u64>,
    /// How long its command may take to end once it is asked to, before it is killed, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// How it is tried again where it fails; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many of its attempts may be lost with their workers before it is dead; absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_losses: Option<u32>,
    /// What must be before it becomes ready; absent: it is at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The lane it waits in; `default` unless given. On NATS, the subject names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Which work goes first.
    #[serde(default)]
    pub priority: Priority,
    /// The user's own marks, to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The job that it repeats, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// An idempotency key: the same key is the same job, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The job's id, chosen by whoever submits: a new `UUIDv7`. The same submission under the same id is the same job, so that one
    /// whose answer was lost can be sent again; absent, or with a `key`: the grid chooses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<JobId>,
}

/// A small text file that comes with a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineFile {
    /// Where it stands in the work directory.
    pub path: RelPath,
    /// What it holds.
    pub content: String,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
}

/// A submission that may become a job, once its inline files are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The job; its inline files are among its inputs.
    pub spec: JobSpec,
    /// The id that was chosen for it.
    pub id: Option<JobId>,
    /// What must be in the store before the job is: each under the SHA-256 that the job's input names.
    pub to_store: Vec<Bytes>,
    /// How many bytes the job has as JSON.
    pub bytes: usize,
}

/// Reads a submission from JSON.
///
/// # Errors
/// A [`Refusal`] that names the field which does not fit.
pub fn parse(json: &[u8]) -> Result<Submission, Refusal> {
    serde_json::from_slice(json).map_err(|error| Refusal(format!("the submission is not a job: {error}; docs/events.md shows the shape")))
}

impl Submission {
    /// Checks a submission, and makes the job that it describes.
    ///
    /// # Errors
    /// A [`Refusal`] where something in it cannot be.
    pub fn accept(self) -> Result<Accepted, Refusal> {
        check_command(&self.command)?;
        let resources = self.resources.unwrap_or_default();
        check_limits(&resources)?;
        check_policies(&self)?;
        check_env(&self.env)?;
        let secrets = secrets::checked(self.secrets, &self.env)?;
        check_labels(&self.labels)?;
        let runtime = self.runtime.map(|text| runtime(&text)).transpose()?;
        let queue: Queue = token("queue", self.queue.as_deref().unwrap_or("default"))?;
        if let Some(image) = &self.image {
            check_image(image, self.executor)?;
        }
        if let Some(key) = &self.key
            && (key.is_empty() || key.len() > MAX_KEY_BYTES)
        {
            return Err(Refusal(format!(
                "the idempotency key must have 1 to {MAX_KEY_BYTES} bytes, and has {}",
                key.len()
            )));
        }
        check_id(self.id, self.key.as_deref())?;
        for glob in self.outputs.iter().flatten() {
            patterns::globs(glob).map_err(|error| Refusal(error.to_string()))?;
        }
        if let Some(tree) = &self.tree
            && tree.size > MAX_TREE_BYTES as u64
        {
            return Err(Refusal(format!(
                "the list of inputs has {} bytes and may have {MAX_TREE_BYTES}; pack the files into an archive, and send that",
                tree.size
            )));
        }
        if let Some(dependencies) = &self.dependencies {
            dependencies.check(runtime.as_ref())?;
        }
        let (inputs, to_store) = gather(self.inputs, self.files)?;
        check_paths(&inputs)?;
        check_dir(self.dir.as_ref(), &inputs)?;
        let spec = JobSpec {
            name: self.name.filter(|name| !name.is_empty()),
            command: self.command,
            runtime,
            image: self.image,
            executor: self.executor,
            dependencies: self.dependencies,
            inputs,
            tree: self.tree,
            dir: self.dir,
            stdin: self.stdin,
            outputs: self.outputs,
            keep_outputs_ms: self.keep_outputs_ms,
            env: self.env,
            secrets,
            resources,
            timeout_ms: self.timeout_ms,
            queue_timeout_ms: self.queue_timeout_ms,
            total_timeout_ms: self.total_timeout_ms,
            grace_ms: self.grace_ms,
            retry: self.retry.filter(|retry| retry.max > 0),
            max_losses: self.max_losses,
            start: self.start.filter(|start| !start.is_empty()),
            queue,
            priority: self.priority,
            labels: self.labels,
            batch: None,
            origin: self.origin,
            key: self.key,
        };
        let bytes = serde_json::to_vec(&spec)
            .map_err(|error| Refusal(format!("the job cannot be written as JSON: {error}")))?
            .len();
        if bytes > MAX_SPEC_BYTES {
            return Err(Refusal(format!(
                "the job is {bytes} bytes long and may have {MAX_SPEC_BYTES}; put long arguments into a file and pass that, and name many files in a list in the store (`tree`)"
            )));
        }
        Ok(Accepted {
            spec,
            id: self.id,
            to_store,
            bytes,
        })
    }
}
