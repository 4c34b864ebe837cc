//! The checks that a submission must pass.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;

use super::{InlineFile, MAX_DEPENDENCIES, MAX_INLINE_BYTES, MAX_TRIES, MIN_MEMORY_BYTES, Submission};
use crate::{
    ids::{Digest, JobId, Token},
    spec::{ExecutorKind, InputFile, Refusal, RelPath, Resources, runtime::RuntimeRef},
};

/// A command cannot start in what is a file.
pub(super) fn check_dir(dir: Option<&RelPath>, inputs: &[InputFile]) -> Result<(), Refusal> {
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
            "the first word of `command` is empty; name the program or script".to_owned(),
        )),
        Some(_) if command.iter().any(|word| word.contains('\0')) => Err(Refusal(
            "an argument holds a NUL character, which no program can be given".to_owned(),
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
pub(super) fn check_policies(submission: &Submission) -> Result<(), Refusal> {
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

pub(super) fn check_env(env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let bad = |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    match env.iter().find(bad) {
        Some((name, _)) => Err(Refusal(format!(
            "the environment variable `{}` cannot be set: its name must not be empty or hold `=`, and neither part a NUL",
            name.escape_debug()
        ))),
        None => Ok(()),
    }
}

pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
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

pub(super) fn check_image(image: &str, executor: Option<ExecutorKind>) -> Result<(), Refusal> {
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

pub(super) fn gather(mut inputs: Vec<InputFile>, files: Vec<InlineFile>) -> Result<(Vec<InputFile>, Vec<Bytes>), Refusal> {
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
