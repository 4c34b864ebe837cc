//! While a job runs: its output on ours, and what happens at Ctrl-C.

use std::time::Duration;

use api::view::{JobView, LogAttempt, Submitted};
use bus::{frame::Stream, ids::JobId};

use super::{
    interrupt::{Interrupts, Wish},
    missed::LastWords,
    say,
};
use crate::{
    client::{Client, Follow, Item, Wanted, bytes_of},
    commands::cancel::request_cancel,
    output::{Closed, Streams},
};

/// How long a job that should perhaps wait may take to start before we say so.
const WARN_AFTER: Duration = Duration::from_secs(2);

/// How we stopped waiting.
#[derive(Debug)]
pub(super) enum Waited {
    /// The job ended, with these words.
    Ended(Box<JobView>, LastWords),
    /// The user let it go on.
    Detached,
    /// The user did not want to wait for its cancellation, which is under way.
    Left,
    /// Nobody reads its output any more; it is being cancelled.
    Unread,
}

/// How a job is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// An interrupt detaches without asking.
    pub(super) detach_on_interrupt: bool,
    /// What the job prints goes to standard error.
    pub(super) on_stderr: bool,
    /// Say where it runs.
    pub(super) verbose: bool,
}

/// Shows what a job prints until it ends, or the user has enough of it.
///
/// # Errors
/// If it cannot be followed or cancelled for good.
pub(super) async fn wait(client: &Client, submitted: &Submitted, manner: Manner) -> anyhow::Result<Waited> {
    let job = submitted.id;
    let mut interrupts = Interrupts::new(manner.detach_on_interrupt)?;
    let mut shown = Box::pin(show(client, submitted, manner));
    let mut is_cancelling = false;
    loop {
        let signal = tokio::select! {
            biased;
            end = &mut shown => return read_end(client, job, end).await,
            signal = interrupts.heard() => signal,
        };
        if is_cancelling {
            return Ok(Waited::Left);
        }
        // While the question stands, nothing is shown: the job's output waits with us.
        match interrupts.wish(signal).await {
            Wish::GoOn => {}
            Wish::Detach => return Ok(Waited::Detached),
            Wish::Cancel => {
                is_cancelling = true;
                let cancelled = tokio::select! {
                    cancelled = cancel(client, job) => cancelled,
                    _ = interrupts.heard() => return Ok(Waited::Left),
                };
                cancelled?;
            }
        }
    }
}

async fn read_end(client: &Client, job: JobId, end: anyhow::Result<(Box<JobView>, LastWords)>) -> anyhow::Result<Waited> {
    match end {
        Ok((view, words)) => Ok(Waited::Ended(view, words)),
        Err(error) if error.is::<Closed>() => cancel(client, job).await.map(|()| Waited::Unread),
        Err(error) => Err(error),
    }
}

/// Asks for the job's end, over an outage too. A job that ended meanwhile needs none.
async fn cancel(client: &Client, job: JobId) -> anyhow::Result<()> {
    loop {
        match request_cancel(client, job, Some("interrupted")).await {
            Ok(_) => return Ok(()),
            Err(error) if error.may_pass() => tokio::time::sleep(Duration::from_millis(500)).await,
            Err(error) if error.is_usage() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
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
    let mut follow = Follow::new(client, job, wanted, say::connection_lost);
    let mut streams = if manner.on_stderr { Streams::on_stderr() } else { Streams::new() };
    let mut item = match &submitted.warning {
        None => follow.next().await?,
        // It is told from tables that may be a moment behind: a job that starts at once needs no warning.
        Some(warning) => match tokio::time::timeout(WARN_AFTER, follow.next()).await {
            Ok(item) => item.inspect(|item| {
                if matches!(item, Item::Waiting(_)) {
                    say::warning(warning);
                }
            })?,
            Err(_) => {
                say::warning(warning);
                follow.next().await?
            }
        },
    };
    loop {
        match item {
            Item::Piece(piece) => {
                let (stream, bytes) = (piece.stream, bytes_of(piece));
                streams.write_bytes(stream, &bytes).await?;
                if stream == Stream::Stderr {
                    words.push(&bytes);
                }
            }
            Item::Attempt(begun) => say_attempt(client, job, begun, manner.verbose).await,
            Item::Waiting(job) => say::waiting(&job),
            Item::Gap(gap) => say::gap(job, gap.bytes),
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
    say::attempt(job, &attempts, begun.attempt.0);
}
