//! What is said when a batch has ended.

use std::process::ExitCode;

use bus::ids::{BatchId, JobId};
use client::{Client, bounded};
use model::BatchView;
use reqwest::Method;

use super::{follow::FollowOutcome, progress::Progress};
use crate::{
    find::now,
    output::{one_line, print_json},
    run::interrupt::Interrupts,
};

/// Failures that are told one by one, and lines of what each printed.
const TOLD: (usize, usize) = (5, 3);
/// How much of the end of what a job printed is kept to find its last lines, in bytes.
const LAST_BYTES: usize = 64 << 10;

/// Says what came of following a batch, and makes that our end. A signal stops it: what was said or saved by then stays.
///
/// # Errors
/// If the batch cannot be shown.
pub(crate) async fn followed(
    client: &Client,
    id: BatchId,
    followed: FollowOutcome,
    names: &[String],
    json: bool,
    interrupts: &mut Interrupts,
) -> anyhow::Result<ExitCode> {
    match followed {
        FollowOutcome::Ended(progress) => {
            let ending = Box::pin(end(client, id, &progress, names, json));
            interrupts.unless(ending).await.unwrap_or_else(|signal| Ok(signal.into()))
        }
        FollowOutcome::Detached(signal) => {
            crate::output::say!("batch {id} continues; follow it with `rgrid attach {id}`");
            Ok(signal.into())
        }
        FollowOutcome::Left(signal) => Ok(signal.into()),
    }
}

/// Says how a batch ended, and makes that our end: 0 only where all succeeded, and all of their outputs are here.
async fn end(client: &Client, id: BatchId, progress: &Progress, names: &[String], json: bool) -> anyhow::Result<ExitCode> {
    let failed = progress.failed();
    for (index, words) in failed.iter().take(TOLD.0) {
        let job = JobId::of_member(id, *index);
        let name = names.get(*index as usize).map_or("", String::as_str);
        crate::output::say!("{} {words}; see `rgrid logs {job}`", one_line(name, 60));
        for line in last_lines(client, job).await {
            eprintln!("    {}", one_line(&line, 160));
        }
    }
    if failed.len() > TOLD.0 {
        crate::output::say!(
            "… and {} more failed; `rgrid status {id} --failed` lists them",
            failed.len() - TOLD.0
        );
    }
    for line in progress.came.lines(&id) {
        crate::output::say!("{line}");
    }
    let (succeeded, cancelled, total) = (progress.succeeded(), progress.cancelled(), progress.total as usize);
    let well = succeeded == total;
    let mut words = format!("rgrid: {succeeded} of {total} succeeded");
    if !failed.is_empty() {
        words += &format!(", {} failed", failed.len());
    }
    if cancelled > 0 {
        words += &format!(", {cancelled} were cancelled");
    }
    if !well {
        words += &format!("; run the others again with `rgrid retry {id} --failed-only`");
    }
    eprintln!("{words}");
    if json {
        let query = [("min_sequence", now(client).await?.to_string())];
        let view: BatchView = client.get(&format!("/v1/batches/{id}"), &query).await?;
        print_json(&view)?;
    }
    Ok(if well && progress.came.is_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The end of what a job wrote to standard error; nothing where that cannot be had.
async fn last_lines(client: &Client, job: JobId) -> Vec<String> {
    let request = client
        .request(Method::GET, &format!("/v1/jobs/{job}/logs"))
        .query(&[("stream", "stderr")]);
    let Ok(response) = client.send(request).await else {
        return Vec::new();
    };
    let text = bounded::end(response, LAST_BYTES).await;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TOLD.1)..]
        .iter()
        .map(ToString::to_string)
        .collect()
}
