//! `rgrid status`: how the grid on this machine is, or where a job stands.

use std::{fmt::Write as _, process::ExitCode};

use bus::job::Outcome;
use chrono::Utc;
use clap::Args;
use client::Client;
use model::{
    AttemptOutcome, AttemptView, BatchView, INTERRUPTED, JobView, LostAttempt, RETURNED, describe, describe_expiry, describe_loss,
};

use crate::{
    commands::batch_words,
    connect::Connect,
    find::{batch_by_id, find_job, members},
    output::{clock, counted, cpus, describe_wait, duration, harmless, one_line, print, print_json, size, typed},
    up,
};

/// The states of members that did not succeed.
const FAILED: &str = "failed,timed_out,out_of_memory,cancelled,dead";

const EXAMPLES: &str = "\
Examples:
  rgrid status            the processes and workers of the grid of `rgrid up`
  rgrid status last       the state of the last job, with its attempts

Exit codes: for the grid, 0 if all of its processes are up, 3 if not; for a job, 0.";

/// Show the state of the grid on this machine, or of a job
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// The job: an id, a part of an id, or `last`; or a batch's id, or `last-batch` [default: show the grid]
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// For a batch: list the jobs that did not succeed
    #[arg(long, requires = "job")]
    failed: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let Some(text) = &args.job else {
        return up::status(args.connect.data_dir.as_deref(), args.json).await;
    };
    let client = args.connect.client()?;
    if let Some(batch) = batch_by_id(&client, text).await? {
        return of_batch(&client, &args, &batch).await;
    }
    let job = find_job(&client, text).await?;
    let view: JobView = client.get(&format!("/v1/jobs/{job}"), &()).await?;
    if args.json {
        print_json(&view)?;
    } else {
        print(&render(&view))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn of_batch(client: &Client, args: &StatusArgs, batch: &BatchView) -> anyhow::Result<ExitCode> {
    let failed = if args.failed {
        members(client, batch.id, FAILED).await?
    } else {
        Vec::new()
    };
    if args.json {
        let mut value = serde_json::to_value(batch)?;
        if args.failed {
            value["failed"] = serde_json::to_value(&failed)?;
        }
        print_json(&value)?;
    } else {
        print(&batch_words::batch(batch))?;
        if !failed.is_empty() {
            print(&batch_words::failed(&failed))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn render(job: &JobView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {}", harmless(&value));
    };
    line("job", job.id.to_string());
    line("name", one_line(&job.name, 80));
    line("state", state(job));
    line("command", typed(&job.command, 200));
    let optional = [("runtime", &job.runtime), ("image", &job.image)];
    for (name, value) in optional {
        value.iter().for_each(|value| line(name, value.clone()));
    }
    line("queue", format!("{} ({})", job.queue, format!("{:?}", job.priority).to_lowercase()));
    line("resources", resources(job));
    if !job.labels.is_empty() {
        line(
            "labels",
            job.labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    line("submitted", clock(job.submitted_at));
    job.started_at.iter().for_each(|time| line("started", clock(*time)));
    job.ended_at.iter().for_each(|time| line("ended", clock(*time)));
    for attempt in &job.attempts {
        line(&format!("attempt {}", attempt.number), describe_attempt(attempt));
    }
    text
}

fn state(job: &JobView) -> String {
    let mut text = job.state.to_string();
    if let Some(code) = job.exit_code.filter(|code| *code != 0) {
        let _ = write!(text, ", exit code {code}");
    }
    if let Some(message) = &job.message {
        let _ = write!(text, ": {message}");
    } else if let Some(words) = describe_wait(job, Utc::now()) {
        let _ = write!(text, ": {words}");
    } else if job.cancel_requested && !job.state.is_end() {
        text.push_str(", and is being cancelled");
    }
    text
}

fn resources(job: &JobView) -> String {
    let memory = job
        .resources
        .memory_bytes
        .map_or_else(|| "no memory limit".to_owned(), |bytes| format!("{} of memory", size(bytes)));
    let limits = [
        ("timeout", job.timeout_ms),
        ("queue timeout", job.queue_timeout_ms),
        ("total timeout", job.total_timeout_ms),
    ];
    let mut text = format!("{} CPU, {memory}", cpus(job.resources.cpu_milli));
    for (name, limit) in limits {
        if let Some(ms) = limit {
            let _ = write!(text, ", {name} {}", duration(std::time::Duration::from_millis(ms)));
        }
    }
    if let Some(retry) = &job.retry {
        let _ = write!(text, ", up to {} {}", retry.max, if retry.max == 1 { "retry" } else { "retries" });
    }
    text
}

fn describe_attempt(attempt: &AttemptView) -> String {
    let mut text = format!("worker {}", attempt.worker);
    if let Some(executor) = attempt.executor {
        let _ = write!(text, ", {executor}");
    }
    if let Some(environment) = &attempt.environment {
        let _ = write!(text, " ({})", one_line(environment, 80));
    }
    let how = match &attempt.outcome {
        None if attempt.started_at.is_some() => "runs".to_owned(),
        None => "is being prepared".to_owned(),
        Some(AttemptOutcome::Finished(Outcome::Succeeded)) => "succeeded".to_owned(),
        Some(AttemptOutcome::Finished(Outcome::Failed { exit_code })) => format!("exit code {exit_code}"),
        Some(AttemptOutcome::Finished(outcome)) => describe(outcome).unwrap_or_default(),
        Some(AttemptOutcome::Lost(LostAttempt::Returned)) => RETURNED.to_owned(),
        Some(AttemptOutcome::Lost(LostAttempt::Interrupted)) => INTERRUPTED.to_owned(),
        Some(AttemptOutcome::Lost(LostAttempt::Expired { clock, limit_ms })) => describe_expiry(*clock, *limit_ms),
        Some(AttemptOutcome::Lost(LostAttempt::Lost { cause })) => format!("given up: {}", describe_loss(cause)),
    };
    let _ = write!(text, ": {how}");
    if let Some(usage) = attempt.usage {
        let _ = write!(text, "; took {}", duration(std::time::Duration::from_millis(usage.wall_ms)));
        if let Some(bytes) = usage.memory_bytes {
            let _ = write!(text, ", memory {}", size(bytes));
        }
    }
    if let Some(manifest) = &attempt.manifest {
        let _ = write!(
            text,
            "; {} ({}), printed {}",
            counted(usize::try_from(manifest.files).unwrap_or(usize::MAX), "output"),
            size(manifest.bytes),
            size(manifest.stdout_bytes + manifest.stderr_bytes)
        );
    }
    text
}
