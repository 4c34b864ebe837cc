//! `rgrid requeue`: revives jobs that were given up.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::Context as _;
use bus::job::State;
use clap::Args;
use client::{Client, Error};
use dialoguer::Confirm;
use model::{JobView, RequeuedMany};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    connect::Connect,
    failure::{sentence, usage},
    find::{find_job, now as log_end},
    output::{print_json, print_line},
    values::Pair,
};

const EXAMPLES: &str = "\
Examples:
  rgrid list --state dead               dead jobs, and why they are dead
  rgrid requeue last
  rgrid requeue --queue gpu --label campaign=spring --reason 'new driver'
  rgrid requeue --state dead --all      all dead jobs

A job can be requeued if it is dead (its attempts were lost with their workers) or has expired (it waited longer than its queue timeout or
its total timeout). A job that ran and failed cannot be requeued: run it again with `rgrid rerun`.

Exit codes: 0 if all jobs are queued again, 1 otherwise.";

/// Queue dead or expired jobs again; their lost attempts and timeouts count from zero
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RequeueArgs {
    /// The jobs: ids, parts of ids, or `last`
    #[arg(value_name = "JOB", conflicts_with_all = ["queue", "label", "name", "state", "all", "namespace"])]
    jobs: Vec<String>,
    /// Jobs in this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Jobs with this label; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Pair>,
    /// Jobs with this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Jobs in this state: dead or timed_out [default: both]
    #[arg(long, value_name = "STATE")]
    #[allow(clippy::doc_markdown, reason = "it is the help text")]
    state: Option<State>,
    /// All jobs of the namespace that match the other options
    #[arg(long, short)]
    all: bool,
    /// Jobs with this namespace
    #[arg(long, value_name = "NAME", env = "RGRID_NAMESPACE")]
    namespace: Option<String>,
    /// The reason, recorded in the jobs' histories
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask for confirmation of --all
    #[arg(long, short)]
    yes: bool,
    /// Print JSON: {"requeued": […], "left": […]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn requeue(args: RequeueArgs) -> anyhow::Result<ExitCode> {
    let narrowed = args.queue.is_some() || !args.label.is_empty() || args.name.is_some();
    if args.jobs.is_empty() && !narrowed && !args.all {
        return Err(usage(
            "name jobs, or select them with --queue, --label or --name; --all selects all jobs",
        ));
    }
    if let Some(state) = args.state.filter(|state| !matches!(state, State::Dead | State::TimedOut)) {
        return Err(usage(format!(
            "a job that is {state} cannot be requeued; --state is dead or timed_out"
        )));
    }
    let client = args.connect.client()?;
    if args.jobs.is_empty() {
        by_filter(&client, &args, narrowed).await
    } else {
        by_name(&client, &args).await
    }
}

async fn by_name(client: &Client, args: &RequeueArgs) -> anyhow::Result<ExitCode> {
    let (mut requeued, mut left) = (Vec::new(), Vec::new());
    for text in &args.jobs {
        match one(client, text, args.reason.as_deref()).await {
            Ok(job) if args.json => requeued.push(json!(job.id)),
            Ok(job) => print_line(&format!("{} is queued again", job.id))?,
            Err(error) => {
                crate::output::say_line("error", &format!("cannot requeue {text}: {}", sentence(&error)));
                left.push(json!({ "job": text, "why": sentence(&error) }));
            }
        }
    }
    if args.json {
        print_json(&json!({ "requeued": requeued, "left": left }))?;
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn one(client: &Client, text: &str, reason: Option<&str>) -> anyhow::Result<JobView> {
    let job = find_job(client, text).await?;
    let path = format!("/v1/jobs/{job}/requeue");
    let request = || client.request(Method::POST, &path).json(&json!({ "reason": reason }));
    match client.json(request()).await {
        Err(error) if error.is_indeterminate() => {}
        answer => return Ok(answer?),
    }
    // The answer was lost. The job is queued again already, or it is now.
    match client.insist(request).await {
        Err(error) if error.is_conflict() => {
            let view: JobView = client.get(&format!("/v1/jobs/{job}"), &()).await?;
            let is_left = matches!(view.state, State::Dead | State::TimedOut);
            if is_left { Err(error.into()) } else { Ok(view) }
        }
        answer => Ok(answer?),
    }
}

async fn by_filter(client: &Client, args: &RequeueArgs, narrowed: bool) -> anyhow::Result<ExitCode> {
    let filter = filter(client, args).await?;
    if !narrowed && !args.yes && !confirmed(client, &filter).await? {
        print_line("nothing was requeued")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut all = RequeuedMany::default();
    loop {
        let mut page = filter.clone();
        page["before"] = json!(all.next.take());
        let came: RequeuedMany = client.post("/v1/requeue", &page).await.map_err(partly)?;
        all.requeued.extend(came.requeued);
        for left in came.left {
            crate::output::say_line("error", &left.why);
            all.left.push(left);
        }
        all.next = came.next;
        if all.next.is_none() {
            break;
        }
    }
    if args.json {
        print_json(&all)?;
    } else {
        print_line(&match all.requeued.len() {
            0 => "no job was requeued".to_owned(),
            1 => "1 job is queued again".to_owned(),
            many => format!("{many} jobs are queued again"),
        })?;
    }
    Ok(if all.left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// An error that leaves open which jobs were revived says that asking once more is safe.
fn partly(error: Error) -> anyhow::Error {
    if error.is_indeterminate() {
        anyhow::Error::new(error).context("some of these jobs may already be queued again; run the same command again: it skips those")
    } else {
        error.into()
    }
}

async fn filter(client: &Client, args: &RequeueArgs) -> anyhow::Result<Value> {
    let labels: BTreeMap<&str, &str> = args.label.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
    let mut filter = json!({ "labels": labels, "min_sequence": log_end(client).await? });
    let texts = [
        ("queue", &args.queue),
        ("name", &args.name),
        ("namespace", &args.namespace),
        ("reason", &args.reason),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            filter[field] = json!(text);
        }
    }
    if let Some(state) = args.state {
        filter["states"] = json!([state]);
    }
    Ok(filter)
}

/// Says how many there are, and asks.
async fn confirmed(client: &Client, filter: &Value) -> anyhow::Result<bool> {
    let mut counting = filter.clone();
    counting["dry_run"] = json!(true);
    let counted: RequeuedMany = client.post("/v1/requeue", &counting).await?;
    let matching = counted.matching.unwrap_or(0);
    if matching == 0 {
        return Ok(true);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(usage(format!(
            "{matching} jobs would be queued again, and there is no terminal to ask for confirmation; use --yes, or select fewer with --queue, --label or --name"
        )));
    }
    let ask = move || {
        let jobs = if matching == 1 {
            "1 job".to_owned()
        } else {
            format!("{matching} jobs")
        };
        Confirm::new().with_prompt(format!("Queue {jobs} again?")).default(false).interact()
    };
    let answer = tokio::task::spawn_blocking(ask).await?;
    answer.context("cannot read an answer; use --yes to skip the question")
}
