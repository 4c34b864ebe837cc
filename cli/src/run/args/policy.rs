//! The options of `rgrid run` that say when a job starts, how long it may take, and how often it is tried.

use bus::spec::policy::{Dependency, DependsOn, Retry, Start};
use clap::Args;
use client::Client;

use crate::{
    failure::usage,
    find::find_job,
    values::{After, Moment, Patience, Span},
};

const STARTS: &str = "Start conditions";
const FAILS: &str = "Retries";
const TAKES: &str = "Timeouts";

/// When a job starts, how long it may take, and how often it is tried.
#[derive(Debug, Default, Args)]
pub(crate) struct PolicyArgs {
    /// How long one attempt may run, such as 90s, 10m or 1h30m [default: no limit]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    timeout: Option<Span>,
    /// How long the job may wait for a worker, each time it is queued
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    queue_timeout: Option<Span>,
    /// How long the job may take in total from now on, with waiting and all attempts
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    total_timeout: Option<Span>,
    /// How long the command may take to exit after SIGTERM before it is killed [default: the worker's setting]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TAKES)]
    grace: Option<Patience>,

    /// Retry a failed job up to N times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000), help_heading = FAILS)]
    retries: Option<u32>,
    /// Retry only after these exit codes (124: timeout, 137: out of memory) [default: after every failure]
    #[arg(long, value_name = "CODES", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(1..=255), help_heading = FAILS)]
    retry_on: Vec<i32>,
    /// The delay before the first retry; it doubles with each retry [default: 1s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = FAILS)]
    backoff: Option<Span>,
    /// The maximum delay between two attempts [default: 5m]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = FAILS)]
    max_backoff: Option<Span>,
    /// How many attempts may be lost with their workers before the job is dead [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = FAILS)]
    max_losses: Option<u32>,

    /// Start no earlier than this long from now, such as 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = STARTS)]
    after: Option<Span>,
    /// Start no earlier than this time: 22:00, 2026-11-23 08:00 (local time), or 2026-11-23T08:00:00Z
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, help_heading = STARTS)]
    at: Option<Moment>,
    /// Start after another job has succeeded (JOB:ended: after it has ended, with any result); can be repeated
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
