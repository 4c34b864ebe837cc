//! `rgrid cancel` of the jobs that a filter finds: the grid looks for them, so that many take few requests.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::Context as _;
use bus::job::State;
use clap::Args;
use client::{Client, Error};
use dialoguer::Confirm;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::CancelledMany;
use reqwest::Method;
use serde_json::json;

use crate::{
    failure::usage,
    find::{now as log_end, until_ended},
    output::{print_json, print_line},
    values::Pair,
};

/// Jobs of one request.
const PAGE: u32 = 500;
/// Running jobs whose ends are waited for at once.
const AT_ONCE: usize = 16;

/// Which jobs, where they are not named.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Jobs in this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Jobs with this label; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Pair>,
    /// Jobs with this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Jobs on this worker
    #[arg(long, value_name = "ID")]
    worker: Option<String>,
    /// Jobs in this state: held, queued, claimed, running or retrying; can be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<State>,
    /// All jobs of the namespace that have not ended and match the other options
    #[arg(long, short)]
    all: bool,
    /// Jobs with this namespace
    #[arg(long, value_name = "NAME", env = "RGRID_NAMESPACE")]
    namespace: Option<String>,
}

/// How they are to be cancelled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) reason: Option<&'a str>,
    pub(super) detach: bool,
    pub(super) yes: bool,
    pub(super) json: bool,
}

impl Which {
    fn is_narrowed(&self) -> bool {
        self.queue.is_some() || !self.label.is_empty() || self.name.is_some() || self.worker.is_some() || !self.state.is_empty()
    }

    /// The parameters of a request for them.
    fn query(&self, min_sequence: u64) -> Vec<(&'static str, String)> {
        let texts = [
            ("queue", &self.queue),
            ("name", &self.name),
            ("worker", &self.worker),
            ("namespace", &self.namespace),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
        let labels = self.label.iter().map(|pair| ("label", format!("{}={}", pair.key, pair.value)));
        let states = self.state.iter().map(|state| ("state", state.to_string()));
        let rest = [("limit", PAGE.to_string()), ("min_sequence", min_sequence.to_string())];
        texts.chain(labels).chain(states).chain(rest).collect()
    }
}

pub(super) async fn cancel_many(
    client: impl FnOnce() -> anyhow::Result<Client>,
    which: &Which,
    asked: Asked<'_>,
) -> anyhow::Result<ExitCode> {
    if !which.is_narrowed() && !which.all {
        return Err(usage(
            "name jobs, or select them with --queue, --label, --name, --worker or --state; --all selects all jobs",
        ));
    }
    if let Some(state) = which.state.iter().find(|state| state.is_end()) {
        return Err(usage(format!("a job that is {state} has ended, and cannot be cancelled")));
    }
    let client = client()?;
    let query = which.query(log_end(&client).await?);
    if !which.is_narrowed() && !asked.yes && !confirmed(&client, &query).await? {
        print_line("nothing was cancelled")?;
        return Ok(ExitCode::SUCCESS);
    }
    let all = pages(&client, &query, asked.reason).await?;
    if !asked.detach {
        let ends = stream::iter(all.cancelling.iter().copied()).map(|job| until_ended(&client, job));
        ends.buffer_unordered(AT_ONCE).try_for_each(|_| std::future::ready(Ok(()))).await?;
    }
    if asked.json {
        print_json(&all)?;
    } else {
        print_line(&words(&all, asked.detach))?;
    }
    Ok(if all.left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Asks for the end of all of them, page by page. Each page may be asked for again, since that changes nothing.
async fn pages(client: &Client, query: &[(&'static str, String)], reason: Option<&str>) -> Result<CancelledMany, Error> {
    let mut all = CancelledMany::default();
    loop {
        let before = all.next.take().map(|next| ("before", next.to_string()));
        let page: CancelledMany = client
            .insist(|| {
                let request = client.request(Method::POST, "/v1/cancel").query(query).query(&before.as_slice());
                request.json(&json!({ "reason": reason }))
            })
            .await?;
        all.cancelled.extend(page.cancelled);
        all.cancelling.extend(page.cancelling);
        for left in page.left {
            eprintln!("error: cannot cancel {}: {}", left.job, left.why);
            all.left.push(left);
        }
        all.next = page.next;
        if all.next.is_none() {
            return Ok(all);
        }
    }
}

fn words(all: &CancelledMany, detach: bool) -> String {
    let jobs = |number: usize| {
        if number == 1 {
            "1 job".to_owned()
        } else {
            format!("{number} jobs")
        }
    };
    let (ended, asked) = (all.cancelled.len(), all.cancelling.len());
    match (ended, asked) {
        (0, 0) => "no job was cancelled: no job that has not ended matches".to_owned(),
        (_, 0) => format!("{} cancelled", jobs(ended)),
        (_, _) if detach => format!("{} cancelled; {asked} running jobs are being cancelled", jobs(ended)),
        (_, _) => format!("{} cancelled, {asked} of them while running", jobs(ended + asked)),
    }
}

/// Says how many there are, and asks.
async fn confirmed(client: &Client, query: &[(&'static str, String)]) -> anyhow::Result<bool> {
    let counting = client.request(Method::POST, "/v1/cancel").query(query);
    let counted: CancelledMany = client.json(counting.json(&json!({ "dry_run": true }))).await?;
    let matching = counted.matching.unwrap_or(0);
    if matching == 0 {
        return Ok(true);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(usage(format!(
            "{matching} jobs would be cancelled, and there is no terminal to ask for confirmation; use --yes, or select fewer with --queue, --label or --name"
        )));
    }
    let ask = move || {
        Confirm::new()
            .with_prompt(format!("Cancel {matching} jobs?"))
            .default(false)
            .interact()
    };
    let answer = tokio::task::spawn_blocking(ask).await?;
    answer.context("cannot read an answer; use --yes to skip the question")
}
