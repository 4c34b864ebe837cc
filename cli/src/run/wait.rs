//! Waits for a job: prints its output, and handles Ctrl-C.

use std::time::Duration;

use bus::ids::JobId;
use client::{Client, Error, Follow, Item, Wanted, bytes_of};
use model::{JobView, LogAttempt, Submitted};
use reqwest::Method;
use serde_json::json;

use super::{
    interrupt::{InterruptChoice, Interrupts, StopSignal},
    messages,
    missing_files::OutputTail,
};
use crate::output::{Closed, Streams};

/// If a job has not started after this time, the CLI prints what it waits for.
const WARN_AFTER: Duration = Duration::from_secs(2);

/// Why waiting for a job stopped.
#[derive(Debug)]
pub(crate) enum WaitOutcome {
    /// The job ended; the end of its output is kept to explain a failure.
    Ended(Box<JobView>, OutputTail),
    /// The user detached with this signal; the job continues.
    Detached(StopSignal),
    /// The user stopped waiting for the cancellation, or the cancellation could not be requested.
    Left(StopSignal),
    /// Our standard output was closed; the job is being cancelled.
    Unread,
}

/// How a job's output is printed while it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitOptions {
    /// The job's output goes to standard error.
    pub(crate) on_stderr: bool,
    /// Report which worker runs the job.
    pub(crate) verbose: bool,
}

/// Prints a job's output until the job ends or the user detaches.
///
/// # Errors
/// If the job cannot be followed or cancelled, and retrying does not help.
pub(crate) async fn wait(
    client: &Client,
    submitted: &Submitted,
    options: WaitOptions,
    interrupts: &mut Interrupts,
) -> anyhow::Result<WaitOutcome> {
    let job = submitted.id;
    let mut shown = Box::pin(show(client, submitted, options));
    let mut is_cancelling = false;
    loop {
        let signal = tokio::select! {
            biased;
            end = &mut shown => return read_end(client, job, end, interrupts).await,
            signal = interrupts.heard() => signal,
        };
        if is_cancelling {
            return Ok(WaitOutcome::Left(signal));
        }
        // While the question stands, nothing is shown: the job's output waits with us.
        match interrupts.wish(signal).await {
            InterruptChoice::GoOn => {}
            InterruptChoice::Detach => return Ok(WaitOutcome::Detached(signal)),
            InterruptChoice::Cancel => {
                is_cancelling = true;
                match interrupts.unless(cancel(client, job)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        messages::not_cancelled(&format!("job {job}"), &job.to_string(), &error);
                        return Ok(WaitOutcome::Left(signal));
                    }
                    Err(second) => return Ok(WaitOutcome::Left(second)),
                }
            }
        }
    }
}

async fn read_end(
    client: &Client,
    job: JobId,
    end: anyhow::Result<(Box<JobView>, OutputTail)>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<WaitOutcome> {
    match end {
        Ok((view, tail)) => Ok(WaitOutcome::Ended(view, tail)),
        Err(error) if error.is::<Closed>() => match interrupts.unless(cancel(client, job)).await {
            Ok(cancelled) => Ok(cancelled.map(|()| WaitOutcome::Unread)?),
            Err(signal) => Ok(WaitOutcome::Left(signal)),
        },
        Err(error) => Err(error),
    }
}

/// Requests the job's cancellation, and retries for up to a minute. A job that has ended meanwhile is not an error.
async fn cancel(client: &Client, job: JobId) -> Result<(), Error> {
    let path = format!("/v1/jobs/{job}/cancel");
    let asked = json!({ "reason": "interrupted" });
    let answer: Result<JobView, Error> = client.insist(|| client.request(Method::POST, &path).json(&asked)).await;
    match answer {
        Err(error) if !error.is_usage() => Err(error),
        _ => Ok(()),
    }
}

async fn show(client: &Client, submitted: &Submitted, options: WaitOptions) -> anyhow::Result<(Box<JobView>, OutputTail)> {
    let mut tail = OutputTail::default();
    let job = submitted.id;
    let wanted = Wanted {
        from_first: true,
        to_the_end: true,
        ..Wanted::default()
    };
    let mut follow = Follow::new(client, job, wanted, messages::connection_lost);
    let mut streams = if options.on_stderr { Streams::on_stderr() } else { Streams::new() };
    let mut item = match &submitted.warning {
        None => follow.next().await?,
        // The tables may be a moment behind: a job that starts at once needs no warning.
        Some(warning) => match tokio::time::timeout(WARN_AFTER, follow.next()).await {
            Ok(item) => item.inspect(|item| {
                if matches!(item, Item::Waiting(_)) {
                    messages::warning(warning);
                }
            })?,
            Err(_) => {
                messages::warning(warning);
                follow.next().await?
            }
        },
    };
    loop {
        match item {
            Item::Piece(piece) => {
                let (stream, bytes) = (piece.stream, bytes_of(piece));
                streams.write_bytes(stream, &bytes).await?;
                tail.push(stream, &bytes);
            }
            Item::Attempt(begun) => say_attempt(client, job, begun, options.verbose).await,
            Item::Waiting(job) => messages::waiting(&job),
            Item::Gap(gap) => messages::gap(job, gap.bytes),
            Item::End(view) => return Ok((view, tail)),
            Item::Stop => {}
        }
        item = follow.next().await?;
    }
}

/// The first attempt is reported only with `--verbose`. A later attempt may repeat output, and is always reported.
async fn say_attempt(client: &Client, job: JobId, begun: LogAttempt, verbose: bool) {
    if begun.attempt.0 == 1 && !verbose {
        return;
    }
    let view: Option<JobView> = client.get(&format!("/v1/jobs/{job}"), &()).await.ok();
    let attempts = view.map(|view| view.attempts).unwrap_or_default();
    messages::attempt(job, &attempts, begun.attempt.0);
}
