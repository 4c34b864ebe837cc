//! The specification of a job: command, files, limits.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    dependencies::Dependencies,
    input::InputFile,
    path::RelPath,
    policy::{Retry, Start},
    resources::{Class, Priority, Resources, Size},
    runtime::RuntimeRef,
    tree::{Content, TreeRef},
};
use crate::{
    batch::BatchMember,
    ids::{Digest, JobId, Queue, Token, default_token},
};

/// How a job's command is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// In its own container.
    Docker,
    /// As a plain process in its own process group.
    Process,
    /// Not executed: the job succeeds at once. Used by `rgrid bench noop`, which measures the log and not the machine.
    Noop,
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Process => "process",
            Self::Noop => "noop",
        })
    }
}

/// The earlier job that a job repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The earlier job's id.
    pub job: JobId,
    /// Why the job is repeated.
    pub kind: OriginKind,
}

/// Why a job is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginKind {
    /// The job is run again exactly as it was.
    Rerun,
    /// The earlier job failed.
    Retry,
}

/// One job as it was accepted: everything that a worker needs to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobSpec {
    /// The job's name in lists; default: the command's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The program or script, and its arguments, passed unchanged.
    pub command: Vec<String>,
    /// The runtime (`python`, `node:22`, `bash`, …) that runs the command; absent: the command is a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeRef>,
    /// The container image to run in, instead of the runtime's own image; requires Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The required executor; absent: the worker chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorKind>,
    /// The packages to install; absent: only what the runtime provides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,
    /// The files to place into the work directory.
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
    /// Environment variables, in addition to the ones that every job has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secrets of the namespace: from variable to secret name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Token>,
    /// The resources that the job needs on a worker.
    #[serde(default)]
    pub resources: Resources,
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
    /// How many attempts may be lost with their workers before the job is dead; absent: [`crate::spec::policy::MAX_LOSSES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_losses: Option<u32>,
    /// The conditions for the job to become ready; absent: it is ready at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The queue in which the job waits.
    #[serde(default = "default_token")]
    pub queue: Queue,
    /// The job's priority in the queue.
    #[serde(default)]
    pub priority: Priority,
    /// The user's labels, to find the job by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The batch that the job belongs to; absent: the job was submitted alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchMember>,
    /// The job that this job repeats; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The idempotency key of the submission. The same key always means the same job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl JobSpec {
    /// A job that runs this command, with defaults for everything else.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            name: None,
            command,
            runtime: None,
            image: None,
            executor: None,
            dependencies: None,
            inputs: Vec::new(),
            tree: None,
            dir: None,
            stdin: None,
            outputs: None,
            keep_outputs_ms: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            resources: Resources::default(),
            timeout_ms: None,
            queue_timeout_ms: None,
            total_timeout_ms: None,
            grace_ms: None,
            retry: None,
            max_losses: None,
            start: None,
            queue: default_token(),
            priority: Priority::default(),
            labels: BTreeMap::new(),
            batch: None,
            origin: None,
            key: None,
        }
    }

    /// The class of the job: with its queue, it decides the work queue in which the job waits.
    #[must_use]
    pub fn class(&self) -> Class {
        Class {
            priority: self.priority,
            size: Size::of(&self.resources),
        }
    }

    /// The contents that the spec itself names: inputs, the list of inputs, standard input, and the files that declare packages. Not
    /// included: the contents that the list of inputs names.
    pub fn contents(&self) -> impl Iterator<Item = Digest> {
        let inputs = self.inputs.iter().map(|input| input.sha256);
        inputs
            .chain(self.tree.map(|tree| tree.sha256))
            .chain(self.stdin.map(|stdin| stdin.sha256))
            .chain(self.dependencies.iter().flat_map(Dependencies::contents))
    }

    /// The job's name in lists.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name
            .as_deref()
            .or_else(|| self.command.first().map(String::as_str))
            .unwrap_or("job")
    }
}
