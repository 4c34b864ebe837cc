//! The checks that a submission must pass.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;

use super::{InlineFile, MAX_DEPENDENCIES, MAX_INLINE_BYTES, MAX_KEY_BYTES, MAX_SPEC_BYTES, MAX_TRIES, MIN_MEMORY_BYTES, Submission};
use crate::{
    ids::{Digest, JobId, Token},
    output::patterns,
    spec::{ExecutorKind, InputFile, JobSpec, Refusal, RelPath, Resources, runtime::RuntimeRef, tree::MAX_TREE_BYTES},
};

/// The command cannot start in a directory whose path is an input file.
pub(super) fn check_dir(dir: Option<&RelPath>, inputs: &[InputFile]) -> Result<(), Refusal> {
    let Some(dir) = dir else { return Ok(()) };
    let is_in_the_way = |input: &&InputFile| Path::new(dir.as_str()).starts_with(input.path.as_str());
    match inputs.iter().find(is_in_the_way) {
        Some(input) => Err(Refusal(format!(
            "the command cannot start in `{dir}`, because the input `{}` is a file; set `dir` to a directory",
            input.path
        ))),
        None => Ok(()),
    }
}

/// Checks an id that the client chose: it must be a `UUIDv7`. The ids that are derived from keys, messages and batches are version 8 and
/// can be guessed, so a client must not be able to choose one before its owner does. The 74 random bits of a `UUIDv7` cannot be guessed,
/// so its time does not matter.
///
/// # Errors
/// A [`Refusal`] if the id is of another version, or if there is also a key.
pub fn check_id(id: Option<JobId>, key: Option<&str>) -> Result<(), Refusal> {
    let Some(id) = id else { return Ok(()) };
    if key.is_some() {
        return Err(Refusal(
            "`id` and `key` cannot be used together, because the key determines the job's id; leave one of them out".to_owned(),
        ));
    }
    if !id.is_chosen() {
        return Err(Refusal(format!(
            "`id` is {id}, which is not a UUIDv7; create a new UUIDv7 for each job, or leave it out"
        )));
    }
    Ok(())
}

pub(super) fn runtime(text: &str) -> Result<RuntimeRef, Refusal> {
    text.parse().map_err(|error| Refusal(format!("the runtime {error}")))
}

pub(super) fn token(what: &str, text: &str) -> Result<Token, Refusal> {
    text.parse().map_err(|error| Refusal(format!("the {what} {error}")))
}

pub(super) fn check_command(command: &[String]) -> Result<(), Refusal> {
    match command.first() {
        None => Err(Refusal(
            "`command` is empty; give the program or script and its arguments".to_owned(),
        )),
        Some(program) if program.is_empty() => Err(Refusal(
            "the first element of `command` is empty; name the program or script".to_owned(),
        )),
        Some(_) if command.iter().any(|word| word.contains('\0')) => Err(Refusal(
            "`command` contains a NUL character, which cannot be passed to a program; remove it".to_owned(),
        )),
        Some(_) => Ok(()),
    }
}

pub(super) fn check_limits(resources: &Resources) -> Result<(), Refusal> {
    if resources.cpu_milli == 0 {
        return Err(Refusal(
            "`resources.cpu_milli` is 0; ask for at least 1 (a thousandth of a CPU)".to_owned(),
        ));
    }
    if let Some(bytes) = resources.memory_bytes
        && bytes < MIN_MEMORY_BYTES
    {
        return Err(Refusal(format!(
            "`resources.memory_bytes` is {bytes}, which is too little for any program; ask for at least {MIN_MEMORY_BYTES} (4 MiB)"
        )));
    }
    if resources.shm_bytes == Some(0) {
        return Err(Refusal(
            "`resources.shm_bytes` is 0; ask for at least 1, or leave it out to get half of the memory".to_owned(),
        ));
    }
    Ok(())
}

/// Checks time limits, retries and conditions. Values that make no sense are refused, so that no job waits for something impossible.
pub(super) fn check_policies(submission: &Submission) -> Result<(), Refusal> {
    let clocks = [
        ("timeout_ms", submission.timeout_ms, "let the job run without a time limit"),
        (
            "queue_timeout_ms",
            submission.queue_timeout_ms,
            "let the job wait without a time limit",
        ),
        ("total_timeout_ms", submission.total_timeout_ms, "let the job take any time"),
        (
            "keep_outputs_ms",
            submission.keep_outputs_ms,
            "keep the outputs as long as the grid does, or set `outputs` to [] to keep none",
        ),
    ];
    if let Some((field, _, meaning)) = clocks.into_iter().find(|(_, limit, _)| *limit == Some(0)) {
        return Err(Refusal(format!("`{field}` is 0; leave it out to {meaning}")));
    }
    if let Some(retry) = &submission.retry {
        if retry.max > MAX_TRIES {
            return Err(Refusal(format!(
                "`retry.max` is {}; a job may have at most {MAX_TRIES} retries",
                retry.max
            )));
        }
        if let Some(code) = retry.on.iter().find(|code| !(1..=255).contains(*code)) {
            return Err(Refusal(format!(
                "`retry.on` contains {code}; the exit code of a failure is between 1 and 255"
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
            "`start.window` is only for the members of a batch; submit a batch with `parallel` (POST /v1/batches)".to_owned(),
        ));
    }
    let after = submission.start.as_ref().map_or(0, |start| start.after.len());
    if after > MAX_DEPENDENCIES {
        return Err(Refusal(format!(
            "`start.after` names {after} jobs; a job may wait for at most {MAX_DEPENDENCIES}"
        )));
    }
    Ok(())
}

pub(super) fn check_env(env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let bad = |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    match env.iter().find(bad) {
        Some((name, _)) => Err(Refusal(format!(
            "the environment variable `{}` is invalid: the name must not be empty or contain `=`, and neither name nor value may contain a NUL",
            name.escape_debug()
        ))),
        None => Ok(()),
    }
}

pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > 64 {
        return Err(Refusal(format!("the job has {} labels; it may have at most 64", labels.len())));
    }
    match labels
        .iter()
        .find(|(name, value)| name.is_empty() || name.len() > 128 || value.len() > 1024 || value.contains('\0') || name.contains('\0'))
    {
        Some((name, _)) => Err(Refusal(format!(
            "the label `{}` is invalid: a name has 1 to 128 bytes, a value at most 1024, and neither may contain a NUL",
            name.escape_debug()
        ))),
        None => Ok(()),
    }
}

/// Whether this can be the name of an image, judging by its characters.
pub(crate) fn is_image(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn check_image(image: &str, executor: Option<ExecutorKind>) -> Result<(), Refusal> {
    if !is_image(image) {
        return Err(Refusal(format!(
            "`{}` is not the name of an image; write it as for `docker run`, for example python:3.12",
            image.escape_debug()
        )));
    }
    match executor {
        Some(executor @ (ExecutorKind::Process | ExecutorKind::Noop)) => Err(Refusal(format!(
            "an image needs the docker executor, but the job requires the {executor} executor; leave one of them out"
        ))),
        Some(ExecutorKind::Docker) | None => Ok(()),
    }
}

/// Adds the inline files to the inputs, and returns their contents, which must be stored.
pub(super) fn add_inline_files(mut inputs: Vec<InputFile>, files: Vec<InlineFile>) -> Result<(Vec<InputFile>, Vec<Bytes>), Refusal> {
    let mut to_store = Vec::with_capacity(files.len());
    for file in files {
        if file.content.len() > MAX_INLINE_BYTES {
            return Err(Refusal(format!(
                "the file `{}` has {} bytes; a file in a submission may have {MAX_INLINE_BYTES}: store it first and name it in `inputs`",
                file.path,
                file.content.len()
            )));
        }
        let content = Bytes::from(file.content);
        inputs.push(InputFile {
            path: file.path,
            sha256: Digest::of(&content),
            size: content.len() as u64,
            executable: file.executable,
            mode: None,
            modified_ms: None,
        });
        to_store.push(content);
    }
    Ok((inputs, to_store))
}

/// Checks the image, the idempotency key, the id, the output patterns, the list of inputs and the packages.
pub(super) fn check_references(submission: &Submission, runtime: Option<&RuntimeRef>) -> Result<(), Refusal> {
    if let Some(image) = &submission.image {
        check_image(image, submission.executor)?;
    }
    let key = submission.key.as_deref();
    if let Some(key) = key
        && (key.is_empty() || key.len() > MAX_KEY_BYTES)
    {
        return Err(Refusal(format!(
            "`key` has {} bytes; an idempotency key has 1 to {MAX_KEY_BYTES} bytes",
            key.len()
        )));
    }
    check_id(submission.id, key)?;
    for glob in submission.outputs.iter().flatten() {
        patterns::globs(glob).map_err(|error| Refusal(error.to_string()))?;
    }
    if let Some(tree) = &submission.tree
        && tree.size > MAX_TREE_BYTES as u64
    {
        return Err(Refusal(format!(
            "the list of inputs has {} bytes; it may have at most {MAX_TREE_BYTES}; pack the files into an archive, and send the archive",
            tree.size
        )));
    }
    match &submission.dependencies {
        Some(dependencies) => dependencies.check(runtime),
        None => Ok(()),
    }
}

/// Checks the size of a job, and returns it: the length of its JSON, in bytes.
pub(super) fn check_size(spec: &JobSpec) -> Result<usize, Refusal> {
    let bytes = serde_json::to_vec(spec)
        .map_err(|error| Refusal(format!("the job cannot be written as JSON: {error}")))?
        .len();
    if bytes > MAX_SPEC_BYTES {
        return Err(Refusal(format!(
            "the job has {bytes} bytes; it may have at most {MAX_SPEC_BYTES}; put long arguments into an input file, and many files into a list in the store (`tree`)"
        )));
    }
    Ok(bytes)
}
