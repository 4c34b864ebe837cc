//! A submission: what a user or a service sends, and the checks that turn it into a job or a refusal.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    grid::secrets,
    ids::{JobId, Queue, Token},
    spec::{
        ExecutorKind, InputFile, JobSpec, Origin, Priority, Refusal, RelPath, Resources,
        dependencies::Dependencies,
        input::check_paths,
        is_false,
        policy::{Retry, Start},
        runtime::RuntimeRef,
        tree::{Content, TreeRef},
    },
};

mod checks;

pub use self::checks::check_id;
pub(crate) use self::checks::is_image;
use self::checks::{
    add_inline_files, check_command, check_dir, check_env, check_labels, check_limits, check_policies, check_references, check_size,
    runtime, token,
};

/// The largest job, as JSON, in bytes. Events are small, and files are referenced.
pub const MAX_SPEC_BYTES: usize = 512 << 10;
/// The largest file that a submission may contain, in bytes.
pub const MAX_INLINE_BYTES: usize = 256 << 10;
/// The least memory that a job may ask for, in bytes. No interpreter starts with less.
pub const MIN_MEMORY_BYTES: u64 = 4 << 20;
/// The largest number of jobs that a job may wait for.
pub const MAX_DEPENDENCIES: usize = 100;
/// The largest number of retries, and of attempts that may be lost.
pub const MAX_TRIES: u32 = 1_000;
/// The longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// One job, as it is submitted over HTTP or on `rgrid.submit.<namespace>.<queue>`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The program or script, and its arguments, passed to the command unchanged.
    pub command: Vec<String>,
    /// The runtime (`python`, `node:22`, `bash`, …) that runs the command; absent: the command is a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The container image to run in; requires Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The required executor; absent: the worker chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorKind>,
    /// The job's name in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The packages to install before the command starts; absent: only what the runtime provides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,
    /// Input files whose contents are in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
    /// More inputs, as a list in the store: used for many files, and for links and directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeRef>,
    /// The directory in which the command starts, relative to the work directory; absent: the work directory itself. Outputs are
    /// collected from the whole work directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<RelPath>,
    /// The command's standard input; absent: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Content>,
    /// Which of the files that the command creates or changes are outputs, as globs relative to the work directory; absent: all; empty:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<String>>,
    /// How long the outputs are kept after the job's end, in milliseconds; absent: as long as the grid keeps outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_outputs_ms: Option<u64>,
    /// Small text files inside the submission. They are stored before the job is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InlineFile>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secrets of the namespace: from variable to secret name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The resources that the job needs on a worker; absent: one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The time limit of one attempt, in milliseconds; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The time limit of each wait for a worker, in milliseconds; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// The time limit of the whole job, including waiting and retries, in milliseconds; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout_ms: Option<u64>,
    /// How long the command may take to exit after it is asked to, before it is killed, in milliseconds; absent: the worker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// How failed attempts are retried; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many attempts may be lost with their workers before the job is dead; absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_losses: Option<u32>,
    /// The conditions for the job to become ready; absent: it is ready at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The queue in which the job waits; default: `default`. On NATS, the subject names the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The job's priority in the queue.
    #[serde(default)]
    pub priority: Priority,
    /// The user's labels, to find the job by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The job that this job repeats, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// An idempotency key. The same key always means the same job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The job's id, chosen by the client: a new `UUIDv7`. A client that received no answer can send the same submission with the same id
    /// again: the job is accepted only once. Absent, or if there is a `key`: the grid chooses the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<JobId>,
}

/// A small text file inside a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineFile {
    /// The file's path in the work directory.
    pub path: RelPath,
    /// The file's content.
    pub content: String,
    /// Whether the file is executable.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
}

/// A submission that passed all checks. It becomes a job once its inline files are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The job. Its inline files are among its inputs.
    pub spec: JobSpec,
    /// The id that the client chose.
    pub id: Option<JobId>,
    /// The contents of the inline files, which must be stored before the job is appended.
    pub to_store: Vec<Bytes>,
    /// The size of the job as JSON, in bytes.
    pub bytes: usize,
}

/// Reads a submission from JSON.
///
/// # Errors
/// A [`Refusal`] that names the invalid field.
pub fn parse(json: &[u8]) -> Result<Submission, Refusal> {
    serde_json::from_slice(json).map_err(|error| {
        Refusal(format!(
            "the submission is not a valid job: {error}; docs/events.md describes the fields"
        ))
    })
}

impl Submission {
    /// Checks a submission, and builds the job that it describes.
    ///
    /// # Errors
    /// A [`Refusal`] if any field is invalid.
    pub fn accept(mut self) -> Result<Accepted, Refusal> {
        check_command(&self.command)?;
        let resources = self.resources.unwrap_or_default();
        check_limits(&resources)?;
        check_policies(&self)?;
        check_env(&self.env)?;
        let secrets = secrets::checked(mem::take(&mut self.secrets), &self.env)?;
        check_labels(&self.labels)?;
        let runtime = self.runtime.as_deref().map(runtime).transpose()?;
        let queue: Queue = token("queue", self.queue.as_deref().unwrap_or("default"))?;
        check_references(&self, runtime.as_ref())?;
        let (inputs, to_store) = add_inline_files(mem::take(&mut self.inputs), mem::take(&mut self.files))?;
        check_paths(&inputs)?;
        check_dir(self.dir.as_ref(), &inputs)?;
        let id = self.id;
        let spec = self.into_spec(Parsed {
            runtime,
            inputs,
            secrets,
            resources,
            queue,
        });
        let bytes = check_size(&spec)?;
        Ok(Accepted { spec, id, to_store, bytes })
    }

    /// The job of a submission that passed all checks.
    fn into_spec(self, parsed: Parsed) -> JobSpec {
        JobSpec {
            name: self.name.filter(|name| !name.is_empty()),
            command: self.command,
            runtime: parsed.runtime,
            image: self.image,
            executor: self.executor,
            dependencies: self.dependencies,
            inputs: parsed.inputs,
            tree: self.tree,
            dir: self.dir,
            stdin: self.stdin,
            outputs: self.outputs,
            keep_outputs_ms: self.keep_outputs_ms,
            env: self.env,
            secrets: parsed.secrets,
            resources: parsed.resources,
            timeout_ms: self.timeout_ms,
            queue_timeout_ms: self.queue_timeout_ms,
            total_timeout_ms: self.total_timeout_ms,
            grace_ms: self.grace_ms,
            retry: self.retry.filter(|retry| retry.max > 0),
            max_losses: self.max_losses,
            start: self.start.filter(|start| !start.is_empty()),
            queue: parsed.queue,
            priority: self.priority,
            labels: self.labels,
            batch: None,
            origin: self.origin,
            key: self.key,
        }
    }
}

/// The fields of a submission that have another type in a job.
struct Parsed {
    runtime: Option<RuntimeRef>,
    /// With the inline files.
    inputs: Vec<InputFile>,
    secrets: BTreeMap<String, Token>,
    resources: Resources,
    queue: Queue,
}
