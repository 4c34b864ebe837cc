//! What a job is: its command, its files, its limits.

pub mod dependencies;
pub mod pep440;
pub mod policy;
pub mod reuse;
pub mod runtime;
pub mod submission;
pub mod tree;

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    batch::BatchMember,
    ids::{Digest, JobId, ParseError, Queue, Token, default_token},
    spec::{
        dependencies::Dependencies,
        policy::{Retry, Start},
        runtime::RuntimeRef,
        tree::{Content, TreeRef},
    },
};

/// A path below a job's work directory: relative, `/`-separated, without `.`, `..`, empty parts or NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct RelPath(String);

impl RelPath {
    /// The longest path, in bytes (Linux's `PATH_MAX` less room for the work directory).
    pub const MAX_LEN: usize = 3072;

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RelPath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let part_fits = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
        if text.len() <= Self::MAX_LEN && !text.contains('\0') && text.split('/').all(part_fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError {
                text: text.to_owned(),
                expected: "a relative path below the work directory (no leading `/`, no `.` or `..` in it)",
            })
        }
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A file that a job needs, referenced by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Where it stands in the work directory.
    pub path: RelPath,
    /// The content's SHA-256, its name in the store.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
    /// Its permission bits, where they are neither 0644 nor, if it may be executed, 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// When it was last changed, in milliseconds since 1970, as programs such as `make` see it; absent: when it was laid out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ms: Option<i64>,
}

impl InputFile {
    /// The permission bits that it is to have.
    #[must_use]
    pub fn permissions(&self) -> u32 {
        let usual = if self.executable { 0o755 } else { 0o644 };
        self.mode.map_or(usual, |mode| mode & 0o777)
    }
}

/// What a job asks of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs, in thousandths. Placement counts it; a limit is enforced where `cpu_limit` is set.
    #[serde(default = "one_cpu")]
    pub cpu_milli: u32,
    /// Memory in bytes. Absent: the job is not limited, and counts as none for placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Whether the CPUs are a limit too, as when the user named them (`--cpu`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub cpu_limit: bool,
    /// What may be in `/dev/shm` of its container, in bytes. Absent: half of its memory, or of the machine's where that is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
}

const fn one_cpu() -> u32 {
    1000
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_milli: one_cpu(),
            memory_bytes: None,
            cpu_limit: false,
            shm_bytes: None,
        }
    }
}

/// Which work goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before everything else.
    High,
    /// Unless another is given.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

/// How big a job is, by the CPUs and memory that it asks for; workers pull only what fits their free room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// Up to 1 CPU and 2 GiB.
    S,
    /// Up to 4 CPUs and 16 GiB.
    M,
    /// Up to 16 CPUs and 64 GiB.
    L,
    /// More.
    Xl,
}

impl Size {
    /// The most that a job of this size asks for: CPU thousandths and bytes of memory.
    #[must_use]
    pub const fn ceiling(self) -> (u32, u64) {
        const GIB: u64 = 1 << 30;
        match self {
            Self::S => (1_000, 2 * GIB),
            Self::M => (4_000, 16 * GIB),
            Self::L => (16_000, 64 * GIB),
            Self::Xl => (u32::MAX, u64::MAX),
        }
    }

    /// The smallest size that holds these resources.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        let fits = |size: &Self| {
            let (cpu, memory) = size.ceiling();
            resources.cpu_milli <= cpu && resources.memory_bytes.unwrap_or(0) <= memory
        };
        [Self::S, Self::M, Self::L].into_iter().find(fits).unwrap_or(Self::Xl)
    }
}

/// Priority and size: the work lane of a queue that a job waits in; `normal-s` in subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Which work goes first.
    pub priority: Priority,
    /// How much room it needs.
    pub size: Size,
}

impl Class {
    /// Every class, the most urgent first, within a priority the smallest first.
    pub const ALL: [Self; 12] = {
        const fn class(priority: Priority, size: Size) -> Class {
            Class { priority, size }
        }
        use Priority::{High, Low, Normal};
        use Size::{L, M, S, Xl};
        [
            class(High, S),
            class(High, M),
            class(High, L),
            class(High, Xl),
            class(Normal, S),
            class(Normal, M),
            class(Normal, L),
            class(Normal, Xl),
            class(Low, S),
            class(Low, M),
            class(Low, L),
            class(Low, Xl),
        ]
    };

    /// The class as a subject's token.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match (self.priority, self.size) {
            (Priority::High, Size::S) => "high-s",
            (Priority::High, Size::M) => "high-m",
            (Priority::High, Size::L) => "high-l",
            (Priority::High, Size::Xl) => "high-xl",
            (Priority::Normal, Size::S) => "normal-s",
            (Priority::Normal, Size::M) => "normal-m",
            (Priority::Normal, Size::L) => "normal-l",
            (Priority::Normal, Size::Xl) => "normal-xl",
            (Priority::Low, Size::S) => "low-s",
            (Priority::Low, Size::M) => "low-m",
            (Priority::Low, Size::L) => "low-l",
            (Priority::Low, Size::Xl) => "low-xl",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

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

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}
