//! While a job runs: its output on ours, and what happens at Ctrl-C.

use std::time::Duration;

use bus::ids::JobId;
use client::{Client, Error, Follow, Item, Wanted, bytes_of};
use model::{JobView, LogAttempt, Submitted};
use reqwest::Method;
use serde_json::json;

use super::{
    interrupt::{Heard, Interrupts, Wish},
    messages,
    missing_files::LastWords,
};
use crate::output::{Closed, Streams};

/// How long a job that should perhaps wait may take to start before we say so.
const WARN_AFTER: Duration = Duration::from_secs(2);

/// How we stopped waiting.
#[derive(Debug)]
pub(crate) enum Waited {
    /// The job ended, with these words.
    Ended(Box<JobView>, LastWords),
    /// The user let it go on, by this signal.
    Detached(Heard),
    /// The user did not want to wait for its cancellation, or that could not be asked for.
    Left(Heard),
    /// Nobody reads its output any more; it is being cancelled.
    Unread,
}

/// How a job is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// What the job prints goes to standard error.
    pub(crate) on_stderr: bool,
    /// Say where it runs.
    pub(crate) verbose: bool,
}

/// Shows what a job prints until it ends, or the user has enough of it.
///
/// # Errors
/// If it cannot be followed or cancelled for good.
pub(crate) async fn wait(client: &Client, submitted: &Submitted, manner: Manner, interrupts: &mut Interrupts) -> anyhow::Result<Waited> {
    let job = submitted.id;
    let mut shown = Box::pin(show(client, submitted, manner));
    let mut is_cancelling = false;
    loop {
        let signal = tokio::select! {
            biased;
            end = &mut shown => return read_end(client, job, end, interrupts).await,
            signal = interrupts.heard() => signal,
        };
        if is_cancelling {
            return Ok(Waited::Left(signal));
        }
        // While the question stands, nothing is shown: the job's output waits with us.
        match interrupts.wish(signal).await {
            Wish::GoOn => {}
            Wish::Detach => return Ok(Waited::Detached(signal)),
            Wish::Cancel => {
                is_cancelling = true;
                match interrupts.unless(cancel(client, job)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        messages::not_cancelled(&format!("job {job}"), &job.to_string(), &error);
                        return Ok(Waited::Left(signal));
                    }
                    Err(second) => return Ok(Waited::Left(second)),
                }
            }
        }
    }
}

async fn read_end(
    client: &Client,
    job: JobId,
    end: anyhow::Result<(Box<JobView>, LastWords)>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Waited> {
    match end {
        Ok((view, words)) => Ok(Waited::Ended(view, words)),
        Err(error) if error.is::<Closed>() => match interrupts.unless(cancel(client, job)).await {
            Ok(cancelled) => Ok(cancelled.map(|()| Waited::Unread)?),
            Err(signal) => Ok(Waited::Left(signal)),
        },
        Err(error) => Err(error),
    }
}

/// Asks for the job's end, over an outage of a minute too. A job that ended meanwhile needs none.
async fn cancel(client: &Client, job: JobId) -> Result<(), Error> {
    let path = format!("/v1/jobs/{job}/cancel");
    let asked = json!({ "reason": "interrupted" });
    let answer: Result<JobView, Error> = client.insist(|| client.request(Method::POST, &path).json(&asked)).await;
    match answer {
        Err(error) if !error.is_usage() => Err(error),
        _ => Ok(()),
    }
}

async fn show(client: &Client, submitted: &Submitted, manner: Manner) -> anyhow::Result<(Box<JobView>, LastWords)> {
    let mut words = LastWords::default();
    let job = submitted.id;
    let wanted = Wanted {
        from_first: true,
        to_the_end: true,
        ..Wanted::default()
    };
    let mut follow = Follow::new(client, job, wanted, messages::connection_lost);
    let mut streams = if manner.on_stderr { Streams::on_stderr() } else { Streams::new() };
    let mut item = match &submitted.warning {
        None => follow.next().await?,
        // It is told from tables that may be a moment behind: a job that starts at once needs no warning.
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
                words.push(stream, &bytes);
            }
            Item::Attempt(begun) => say_attempt(client, job, begun, manner.verbose).await,
            Item::Waiting(job) => messages::waiting(&job),
            Item::Gap(gap) => messages::gap(job, gap.bytes),
            Item::End(view) => return Ok((view, words)),
            Item::Stop => {}
        }
        item = follow.next().await?;
    }
}

/// A first attempt is news only to those who asked; a further one may repeat output, and must be explained.
async fn say_attempt(client: &Client, job: JobId, begun: LogAttempt, verbose: bool) {
    if begun.attempt.0 == 1 && !verbose {
        return;
    }
    let view: Option<JobView> = client.get(&format!("/v1/jobs/{job}"), &()).await.ok();
    let attempts = view.map(|view| view.attempts).unwrap_or_default();
    messages::attempt(job, &attempts, begun.attempt.0);
}
