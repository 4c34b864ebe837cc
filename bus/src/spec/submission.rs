//! What a user or a service hands in, and how it becomes a job or a refusal that says what to change.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    grid::secrets,
    ids::{JobId, Queue, Token},
    output::patterns,
    spec::{
        ExecutorKind, InputFile, JobSpec, Origin, Priority, RelPath, Resources,
        dependencies::Dependencies,
        is_false,
        policy::{Retry, Start},
        runtime::RuntimeRef,
        tree::{Content, MAX_TREE_BYTES, TreeRef},
    },
};

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

/// Why a submission is refused: a sentence that says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct Refusal(pub String);

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

/// A command cannot start in what is a file.
fn check_dir(dir: Option<&RelPath>, inputs: &[InputFile]) -> Result<(), Refusal> {
    let Some(dir) = dir else { return Ok(()) };
    let is_in_the_way = |input: &&InputFile| Path::new(dir.as_str()).starts_with(input.path.as_str());
    match inputs.iter().find(is_in_the_way) {
        Some(input) => Err(Refusal(format!(
            "the command is to start in `{dir}`, and the input `{}` is a file; name a directory with `dir`",
            input.path
        ))),
        None => Ok(()),
    }
}

/// A chosen id is a `UUIDv7`. Those of keys, messages and members of batches are of version 8 and made of what may be guessed: nobody
/// may take one of them before its owner does. The 74 random bits of a `UUIDv7` cannot be guessed, so its time does not matter.
///
/// # Errors
/// A [`Refusal`] of another id, and of one beside a key.
pub fn check_id(id: Option<JobId>, key: Option<&str>) -> Result<(), Refusal> {
    let Some(id) = id else { return Ok(()) };
    if key.is_some() {
        return Err(Refusal(
            "`id` and `key` cannot be had together: the key decides the job's id; leave one of them out".to_owned(),
        ));
    }
    if !id.is_chosen() {
        return Err(Refusal(format!(
            "`id` is {id}, which is not a UUIDv7; make a new one for each job, or leave it out"
        )));
    }
    Ok(())
}

fn runtime(text: &str) -> Result<RuntimeRef, Refusal> {
    text.parse().map_err(|error| Refusal(format!("the runtime {error}")))
}

fn token(what: &str, text: &str) -> Result<Token, Refusal> {
    text.parse().map_err(|error| Refusal(format!("the {what} {error}")))
}

fn check_command(command: &[String]) -> Result<(), Refusal> {
    match command.first() {
        None => Err(Refusal(
            "`command` is empty; give the program or script and its arguments".to_owned(),
        )),
        Some(program) if program.is_empty() => Err(Refusal(
            "the first word of `command` is empty; name the program or script".to_owned(),
        )),
        Some(_) if command.iter().any(|word| word.contains('\0')) => Err(Refusal(
            "an argument holds a NUL character, which no program can be given".to_owned(),
        )),
        Some(_) => Ok(()),
    }
}

fn check_limits(resources: &Resources) -> Result<(), Refusal> {
    if resources.cpu_milli == 0 {
        return Err(Refusal(
            "`resources.cpu_milli` is 0; ask for at least 1 (a thousandth of a CPU)".to_owned(),
        ));
    }
    if let Some(bytes) = resources.memory_bytes
        && bytes < MIN_MEMORY_BYTES
    {
        return Err(Refusal(format!(
            "{bytes} bytes of memory are too few for any program; ask for at least {MIN_MEMORY_BYTES} (4 MiB)"
        )));
    }
    if resources.shm_bytes == Some(0) {
        return Err(Refusal(
            "`resources.shm_bytes` is 0; ask for at least 1, or leave it out to have half of the memory".to_owned(),
        ));
    }
    Ok(())
}

/// Clocks, retries and conditions: what can never be meant is refused, so that nobody waits for it.
fn check_policies(submission: &Submission) -> Result<(), Refusal> {
    let clocks = [
        ("timeout_ms", submission.timeout_ms, "let the job run as long as it likes"),
        (
            "queue_timeout_ms",
            submission.queue_timeout_ms,
            "let the job wait as long as it must",
        ),
        (
            "total_timeout_ms",
            submission.total_timeout_ms,
            "let the job take as long as it likes",
        ),
        (
            "keep_outputs_ms",
            submission.keep_outputs_ms,
            "keep the outputs as long as the grid does, or give `outputs` as [] to have none",
        ),
    ];
    if let Some((clock, _, otherwise)) = clocks.into_iter().find(|(_, limit, _)| *limit == Some(0)) {
        return Err(Refusal(format!("`{clock}` is 0; leave it out to {otherwise}")));
    }
    if let Some(retry) = &submission.retry {
        if retry.max > MAX_TRIES {
            return Err(Refusal(format!("{} retries are too many; a job may have {MAX_TRIES}", retry.max)));
        }
        if let Some(code) = retry.on.iter().find(|code| !(1..=255).contains(*code)) {
            return Err(Refusal(format!(
                "`retry.on` names the exit code {code}; a failure has one of 1 to 255"
            )));
        }
    }
    if submission.max_losses.is_some_and(|losses| losses == 0 || losses > MAX_TRIES) {
        return Err(Refusal(format!(
            "`max_losses` is not between 1 and {MAX_TRIES}; with 1, a job whose worker is lost is not run again"
        )));
    }
    if submission.start.as_ref().is_some_and(|start| start.window) {
        return Err(Refusal(
            "`start.window` is for the members of a batch; submit a batch with `parallel` (POST /v1/batches)".to_owned(),
        ));
    }
    let after = submission.start.as_ref().map_or(0, |start| start.after.len());
    if after > MAX_DEPENDENCIES {
        return Err(Refusal(format!(
            "{after} jobs to wait for are too many; a job may wait for {MAX_DEPENDENCIES}"
        )));
    }
    Ok(())
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let bad = |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    match env.iter().find(bad) {
        Some((name, _)) => Err(Refusal(format!(
            "the environment variable `{}` cannot be set: its name must not be empty or hold `=`, and neither part a NUL",
            name.escape_debug()
        ))),
        None => Ok(()),
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > 64 {
        return Err(Refusal(format!("{} labels are too many; a job may have 64", labels.len())));
    }
    match labels
        .iter()
        .find(|(name, value)| name.is_empty() || name.len() > 128 || value.len() > 1024 || value.contains('\0') || name.contains('\0'))
    {
        Some((name, _)) => Err(Refusal(format!(
            "the label `{}` cannot be kept: a name has 1 to 128 bytes, a value up to 1024, and neither holds a NUL",
            name.escape_debug()
        ))),
        None => Ok(()),
    }
}

/// Whether an image can have this name, as far as its letters tell.
pub(crate) fn is_image(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn check_image(image: &str, executor: Option<ExecutorKind>) -> Result<(), Refusal> {
    if !is_image(image) {
        return Err(Refusal(format!(
            "`{}` is not an image's name; write it as for `docker run`, for instance python:3.12",
            image.escape_debug()
        )));
    }
    match executor {
        Some(executor @ (ExecutorKind::Process | ExecutorKind::Noop)) => Err(Refusal(format!(
            "an image needs the docker executor, and the job asks for {executor}; leave one of them out"
        ))),
        Some(ExecutorKind::Docker) | None => Ok(()),
    }
}

fn gather(mut inputs: Vec<InputFile>, files: Vec<InlineFile>) -> Result<(Vec<InputFile>, Vec<Bytes>), Refusal> {
    let mut to_store = Vec::with_capacity(files.len());
    for file in files {
        if file.content.len() > MAX_INLINE_BYTES {
            return Err(Refusal(format!(
                "the file `{}` has {} bytes; what comes with a submission may have {MAX_INLINE_BYTES}: store it first and name it in `inputs`",
                file.path,
                file.content.len()
            )));
        }
        let content = Bytes::from(file.content);
        inputs.push(InputFile {
            path: file.path,
            sha256: crate::ids::Digest::of(&content),
            size: content.len() as u64,
            executable: file.executable,
            mode: None,
            modified_ms: None,
        });
        to_store.push(content);
    }
    Ok((inputs, to_store))
}

/// No path twice, and no file where another needs a directory.
pub(crate) fn check_paths(inputs: &[InputFile]) -> Result<(), Refusal> {
    let mut paths = BTreeSet::new();
    if let Some(twice) = inputs.iter().find(|file| !paths.insert(file.path.as_str())) {
        return Err(Refusal(format!(
            "two files are to stand at `{}`; give one of them another path",
            twice.path
        )));
    }
    let parents = |path: &str| path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect::<Vec<_>>();
    for file in inputs {
        if let Some(parent) = parents(file.path.as_str())
            .into_iter()
            .find(|parent| paths.contains(parent.as_str()))
        {
            return Err(Refusal(format!(
                "`{parent}` is a file, and `{}` needs a directory there; give one of them another path",
                file.path
            )));
        }
    }
    Ok(())
}
