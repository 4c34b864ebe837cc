//! Following a batch to its end, over every broken connection, with a bar or with lines.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use bus::ids::{BatchId, JobId};
use client::{Client, Error, Events};
use futures::{StreamExt as _, stream::FuturesUnordered};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::BatchView;
use reqwest::Method;
use serde_json::json;

use super::{
    outputs::{OutputDirs, fetch},
    progress::{Progress, ProgressEvent, TYPES},
};
use crate::{
    run::{
        interrupt::{InterruptChoice, Interrupts, StopSignal},
        messages,
    },
    saving::SaveMode,
};

/// How often what is seen is shown: on a terminal, and in a pipe.
const SHOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a batch that is over is looked at: of one that was cut off half-way, not all members come.
const LOOK: Duration = Duration::from_secs(1);
/// The pause before the connection is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// Members whose outputs are fetched at once.
const FETCHES: usize = 4;

/// Outputs are saved as the members themselves would have left them.
const AS_RUN: SaveMode = SaveMode::AsRun { failed: false };

/// How following it ended.
pub(crate) enum FollowOutcome {
    /// All of its members have.
    Ended(Box<Progress>),
    /// The user detached with this signal; the job continues.
    Detached(StopSignal),
    /// The user stopped waiting for the cancellation, or the cancellation could not be requested.
    Left(StopSignal),
}

/// Follows a batch until all of its members have ended, and brings their outputs home where that is wanted.
///
/// # Errors
/// If it cannot be followed for good, or an output cannot be saved.
pub(crate) async fn follow(
    client: &Client,
    id: BatchId,
    total: u32,
    output_dirs: Option<OutputDirs>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<FollowOutcome> {
    let mut shown = ProgressDisplay::new(total);
    let mut followed = Box::pin(follow_to_end(client, id, total, output_dirs, &mut shown));
    let mut is_cancelling = false;
    loop {
        let signal = tokio::select! {
            biased;
            end = &mut followed => return Ok(FollowOutcome::Ended(Box::new(end?))),
            signal = interrupts.heard() => signal,
        };
        if is_cancelling {
            return Ok(FollowOutcome::Left(signal));
        }
        match interrupts.wish(signal).await {
            InterruptChoice::GoOn => {}
            InterruptChoice::Detach => return Ok(FollowOutcome::Detached(signal)),
            InterruptChoice::Cancel => {
                is_cancelling = true;
                match interrupts.unless(cancel(client, id)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        messages::not_cancelled(&format!("batch {id}"), &id.to_string(), &error);
                        return Ok(FollowOutcome::Left(signal));
                    }
                    Err(second) => return Ok(FollowOutcome::Left(second)),
                }
            }
        }
    }
}

/// Asks for the batch's end, over an outage of a minute too.
async fn cancel(client: &Client, id: BatchId) -> Result<(), Error> {
    let path = format!("/v1/batches/{id}/cancel");
    let reason = json!({ "reason": "interrupted" });
    let answer: Result<serde_json::Value, Error> = client.insist(|| client.request(Method::POST, &path).json(&reason)).await;
    match answer {
        Err(error) if !error.is_usage() => Err(error),
        _ => Ok(()),
    }
}

async fn follow_to_end(
    client: &Client,
    id: BatchId,
    total: u32,
    output_dirs: Option<OutputDirs>,
    shown: &mut ProgressDisplay,
) -> anyhow::Result<Progress> {
    let mut progress = Progress::new(total);
    let mut fetches = FuturesUnordered::new();
    let mut waiting = std::collections::VecDeque::new();
    let mut events = BatchFeed::new(client, id);
    let mut ticks = tokio::time::interval(SHOW.0);
    let mut looked = Instant::now();
    while !progress.is_done() {
        tokio::select! {
            told = events.next() => waiting.extend(progress.see(told?).filter(|_| output_dirs.is_some())),
            Some(fetched) = fetches.next() => progress.came.add(fetched?),
            _ = ticks.tick() => {
                shown.show(&progress, false);
                if progress.over && looked.elapsed() >= LOOK {
                    looked = Instant::now();
                    let view: Result<BatchView, Error> = client.get(&format!("/v1/batches/{id}"), &()).await;
                    if view.is_ok_and(|view| view.state.is_end()) {
                        break;
                    }
                }
            }
        }
        if let Some(output_dirs) = &output_dirs {
            while fetches.len() < FETCHES {
                let Some(index) = waiting.pop_front() else { break };
                fetches.push(fetch(client, JobId::of_member(id, index), index, output_dirs, AS_RUN));
            }
        }
    }
    if let Some(output_dirs) = &output_dirs {
        for index in waiting {
            if fetches.len() >= FETCHES
                && let Some(fetched) = fetches.next().await
            {
                progress.came.add(fetched?);
            }
            fetches.push(fetch(client, JobId::of_member(id, index), index, output_dirs, AS_RUN));
        }
    }
    while let Some(fetched) = fetches.next().await {
        progress.came.add(fetched?);
    }
    shown.show(&progress, true);
    Ok(progress)
}

/// What happens to a batch, from its beginning, each event once.
pub(crate) struct BatchFeed<'a> {
    client: &'a Client,
    query: [(&'static str, String); 2],
    events: Option<Events>,
    last_id: Option<String>,
    failures: u32,
}

impl<'a> BatchFeed<'a> {
    pub(crate) fn new(client: &'a Client, id: BatchId) -> Self {
        Self {
            client,
            query: [("batch", id.to_string()), ("types", TYPES.to_owned())],
            events: None,
            last_id: None,
            failures: 0,
        }
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<ProgressEvent> {
        loop {
            let Some(events) = self.events.as_mut() else {
                match Events::open(self.client, "/v1/facts", &self.query, self.last_id.as_deref()).await {
                    Ok(events) => self.events = Some(events),
                    Err(error) if error.may_pass() => {
                        self.failures += 1;
                        if self.failures == 4 {
                            crate::output::say!("{error} Retrying; the batch continues.");
                        }
                        tokio::time::sleep(AGAIN).await;
                    }
                    Err(error) => return Err(error.into()),
                }
                continue;
            };
            let Ok(Some(event)) = events.next().await else {
                self.events = None;
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            self.failures = 0;
            if let Some(id) = events.last_id() {
                self.last_id = Some(id.to_owned());
            }
            if let Ok(told) = serde_json::from_str(&event.data) {
                return Ok(told);
            }
        }
    }
}

/// A bar on a terminal; in a pipe, a line now and then.
struct ProgressDisplay {
    bar: Option<ProgressBar>,
    last: Instant,
}

impl ProgressDisplay {
    fn new(total: u32) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(u64::from(total)), ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, last: Instant::now() }
    }

    fn show(&mut self, progress: &Progress, last: bool) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(progress.done() as u64);
                bar.set_message(progress.line());
                if last {
                    bar.finish_and_clear();
                }
            }
            None if !last && self.last.elapsed() >= SHOW.1 => {
                self.last = Instant::now();
                crate::output::say!("{}", progress.line());
            }
            None => {}
        }
    }
}
