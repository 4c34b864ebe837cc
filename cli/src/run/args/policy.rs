//! The options of `rgrid run` that say when a job starts, how long it may take, and how often it is tried.

use bus::spec::policy::{Dependency, DependsOn, Retry, Start};
use clap::Args;
use client::Client;

use crate::{
    failure::usage,
    find::find_job,
    values::{After, Moment, Patience, Span},
};

const STARTS: &str = "When it starts";
const FAILS: &str = "When it fails";
const TAKES: &str = "How long it may take";

/// When a job starts, how long it may take, and how often it is tried.
#[derive(Debug, Default, Args)]
pub(crate) struct PolicyArgs {
    /// How long an attempt may run, such as 90s, 10m or 1h30m [default: as long as it likes]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    timeout: Option<Span>,
    /// How long it may wait for a worker, each time that it waits
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    queue_timeout: Option<Span>,
    /// How long all of it may take, from now on, with its waiting and every attempt
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    total_timeout: Option<Span>,
    /// How long its command may take to end when it is asked to (SIGTERM), before it is killed [default: what the worker grants]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    grace: Option<Patience>,

    /// Try again when it fails, at most so often
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000), help_heading = FAILS)]
    retries: Option<u32>,
    /// Only after these exit codes (124: timed out, 137: out of memory) [default: after every failure]
    #[arg(long, value_name = "CODES", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(1..=255), help_heading = FAILS)]
    retry_on: Vec<i32>,
    /// The pause before the first retry, which doubles from one to the next [default: 1s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = FAILS)]
    backoff: Option<Span>,
    /// The longest pause between two tries [default: 5m]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = FAILS)]
    max_backoff: Option<Span>,
    /// How many attempts may be lost with their workers before it is given up [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = FAILS)]
    max_losses: Option<u32>,

    /// Not before so long from now, such as 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = STARTS)]
    after: Option<Span>,
    /// Not before this time: 22:00, 2026-11-23 08:00 (this machine's clock), or 2026-11-23T08:00:00Z
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, help_heading = STARTS)]
    at: Option<Moment>,
    /// Not before another job has succeeded (JOB:ended: however it ends); may be given several times
    #[arg(long, value_name = "JOB[:HOW]", help_heading = STARTS)]
    depends_on: Vec<After>,
}

/// The same, as a submission says it.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) queue_timeout_ms: Option<u64>,
    pub(crate) total_timeout_ms: Option<u64>,
    pub(crate) grace_ms: Option<u64>,
    pub(crate) retry: Option<Retry>,
    pub(crate) max_losses: Option<u32>,
    pub(crate) start: Option<Start>,
}

impl PolicyArgs {
    /// Refuses what can never be meant together.
    ///
    /// # Errors
    /// A usage error that says what to change.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let needs_retries = [
            ("--retry-on", !self.retry_on.is_empty()),
            ("--backoff", self.backoff.is_some()),
            ("--max-backoff", self.max_backoff.is_some()),
        ];
        if self.retries.is_none()
            && let Some((option, _)) = needs_retries.into_iter().find(|(_, given)| *given)
        {
            return Err(usage(format!(
                "{option} is for a job that is tried again; say how often with --retries N"
            )));
        }
        if let (Some(first), Some(longest)) = (self.backoff, self.max_backoff)
            && first > longest
        {
            return Err(usage(
                "--backoff is longer than --max-backoff; make the longest pause at least as long as the first",
            ));
        }
        if let (Some(total), Some(attempt)) = (self.total_timeout, self.timeout)
            && attempt > total
        {
            return Err(usage(
                "--timeout is longer than --total-timeout, which ends the job before; make it shorter, or leave it out",
            ));
        }
        if let (Some(total), Some(delay)) = (self.total_timeout, self.after)
            && delay >= total
        {
            return Err(usage(
                "--total-timeout counts from now on and is over before --after; make it longer",
            ));
        }
        Ok(())
    }

    /// Looks for the jobs that are named, and says all of it as a submission does.
    ///
    /// # Errors
    /// If a job that is to be followed is not found.
    pub(crate) async fn resolve(&self, client: &Client) -> anyhow::Result<Policies> {
        let default = Retry::default();
        let retry = self.retries.map(|max| {
            let backoff_ms = self.backoff.map_or(default.backoff_ms, Span::millis);
            Retry {
                max,
                on: self.retry_on.clone(),
                backoff_ms,
                // A first pause that is longer than the usual longest one is meant.
                max_backoff_ms: self.max_backoff.map_or(default.max_backoff_ms.max(backoff_ms), Span::millis),
            }
        });
        let mut after = Vec::with_capacity(self.depends_on.len());
        for other in &self.depends_on {
            after.push(Dependency {
                job: find_job(client, &other.job).await?,
                on: if other.however { DependsOn::Ended } else { DependsOn::Succeeded },
            });
        }
        let start = Start {
            delay_ms: self.after.map(Span::millis),
            at: self.at.map(|moment| moment.0),
            after,
            window: false,
        };
        Ok(Policies {
            timeout_ms: self.timeout.map(Span::millis),
            queue_timeout_ms: self.queue_timeout.map(Span::millis),
            total_timeout_ms: self.total_timeout.map(Span::millis),
            grace_ms: self.grace.map(Patience::millis),
            retry,
            max_losses: self.max_losses,
            start: (!start.is_empty()).then_some(start),
        })
    }
}
