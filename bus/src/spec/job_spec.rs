//! What a job is: its command, its files, its limits.

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
    /// In a container of its own.
    Docker,
    /// As a plain process in a group of its own.
    Process,
    /// Not at all: succeeds at once. For `rgrid bench noop`, which measures the log and not the machine.
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

/// What a job repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The earlier job.
    pub job: JobId,
    /// Why it is repeated.
    pub kind: OriginKind,
}

/// Why a job is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginKind {
    /// To be made exactly as it was.
    Rerun,
    /// Because it failed.
    Retry,
}

/// One job as it was accepted: everything that a worker needs to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobSpec {
    /// What to call it in lists; the command's name unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The program or script, and its arguments, each exactly as given.
    pub command: Vec<String>,
    /// The interpreter (`python`, `node:22`, `bash`, …) that the command is handed to; absent: the command is a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeRef>,
    /// The container image to run in, instead of the runtime's own; requires Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The executor that must be used; absent: what the worker chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorKind>,
    /// The packages that it needs; absent: what its runtime has by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,
    /// The files to lay into the work directory.
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
    /// Environment variables, besides the ones every job has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secrets of the namespace: the variable, and the secret's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Token>,
    /// What it asks of a worker.
    #[serde(default)]
    pub resources: Resources,
    /// How long one attempt may run, in milliseconds; absent: as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long it may wait for a worker each time that it waits, in milliseconds; absent: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// How long all of it may take, waiting and retries included, in milliseconds; absent: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout_ms: Option<u64>,
    /// How long its command may take to end once it is asked to, before it is killed, in milliseconds; absent: what the worker grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// How it is tried again where it fails; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many of its attempts may be lost with their workers before it is dead; absent: [`crate::spec::policy::MAX_LOSSES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_losses: Option<u32>,
    /// What must be before it becomes ready; absent: it is at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The lane it waits in.
    #[serde(default = "default_token")]
    pub queue: Queue,
    /// Which work goes first.
    #[serde(default)]
    pub priority: Priority,
    /// The user's own marks, to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The batch that it belongs to; absent: it was submitted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchMember>,
    /// The job that it repeats; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The idempotency key it was submitted under: the same key is the same job, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl JobSpec {
    /// A job that runs this command, with nothing else asked for.
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

    /// The work lane that this job waits in.
    #[must_use]
    pub fn class(&self) -> Class {
        Class {
            priority: self.priority,
            size: Size::of(&self.resources),
        }
    }

    /// What it names in the store by itself: inputs, list of inputs, standard input, what declares its packages; not what its list names.
    pub fn contents(&self) -> impl Iterator<Item = Digest> {
        let inputs = self.inputs.iter().map(|input| input.sha256);
        inputs
            .chain(self.tree.map(|tree| tree.sha256))
            .chain(self.stdin.map(|stdin| stdin.sha256))
            .chain(self.dependencies.iter().flat_map(Dependencies::contents))
    }

    /// What to call this job in a list.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name
            .as_deref()
            .or_else(|| self.command.first().map(String::as_str))
            .unwrap_or("job")
    }
}
