//! `rgrid doctor`: what is wrong with the grid, and what to do.

use std::{fmt::Write as _, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Args;
use client::Error;
use model::{Diagnosis, Finding, Severity, Summary};
use serde_json::json;

use crate::{
    connect::Connect,
    output::{duration, one_line, print, print_json, size},
    up,
};

/// How long the API may take to look at everything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Below how many hundredths of free space a disk is nearly full, and full.
const FREE: (u64, u64) = (10, 5);

const EXAMPLES: &str = "\
Examples:
  rgrid doctor
  rgrid doctor --json | jq -r '.findings[] | select(.severity == \"error\").what'

Severities: error: something does not work now; warning: something failed or will fail soon; notice: an intended state.

Exit codes: 0 if there is no error, 1 if there is one.";

/// Show problems of the grid, and what to do about them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Print JSON: {"findings": […], "summary": {…}}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let looked = tokio::time::timeout(PATIENCE, client.get::<Diagnosis, _>("/v1/doctor", &())).await;
    // A grid elsewhere has no disk of ours, and no processes here.
    let local = if args.connect.url.is_none() {
        up::local(args.connect.data_dir.as_deref())?
    } else {
        None
    };
    let (mut findings, summary) = match looked {
        Ok(Ok(diagnosis)) => (diagnosis.findings, Some(diagnosis.summary)),
        Ok(Err(error @ (Error::Unreachable { .. } | Error::NotRgrid { .. }))) => (unreachable(&error.to_string(), local.as_ref()), None),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => {
            let words = format!("the API at {} does not answer within {} s", client.url(), PATIENCE.as_secs());
            (unreachable(&words, local.as_ref()), None)
        }
    };
    if let Some(local) = &local {
        findings.extend(disk(&local.data_dir)?);
        findings.sort_by_key(|finding| finding.severity);
    }
    let has_error = findings.iter().any(|finding| finding.severity == Severity::Error);
    if args.json {
        print_json(&json!({ "findings": findings, "summary": summary }))?;
    } else {
        print(&render(&findings, summary.as_ref(), Utc::now()))?;
    }
    Ok(if has_error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The API cannot be asked: what can be seen from here.
fn unreachable(error: &str, local: Option<&up::Local>) -> Vec<Finding> {
    let Some(local) = local else {
        return vec![Finding::error(
            "api",
            error,
            "start it (`rgrid api`) on its machine, or check the network connection",
        )];
    };
    let dir = local.data_dir.display();
    if !local.runs {
        let what = format!("the grid in {dir} is not running");
        return vec![Finding::error("api", what, format!("start it: `{}`", local.start))];
    }
    let mut findings = vec![Finding::error(
        "api",
        error,
        "see below and in `rgrid status` which process is not up",
    )];
    findings.extend(local.ailing.iter().map(|(part, state, last_end)| {
        let ended = last_end
            .as_ref()
            .map(|end| format!("; it last exited with: {end}"))
            .unwrap_or_default();
        let advice = format!("its supervisor starts it again; its log is in {dir}/logs");
        Finding::error(part, format!("{part} is {state}{ended}"), advice)
    }));
    findings
}

/// Whether the disk of the data directory is about to be full.
fn disk(dir: &Path) -> anyhow::Result<Option<Finding>> {
    let Ok(found) = rustix::fs::statvfs(dir) else { return Ok(None) };
    let total = found.f_blocks.saturating_mul(found.f_frsize);
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let dir = dir.to_str().context("the data directory's path is not text")?;
    Ok(scarce(dir, free, total))
}

fn scarce(dir: &str, free: u64, total: u64) -> Option<Finding> {
    let percent = free.saturating_mul(100).checked_div(total)?;
    let what = format!("the disk of {dir} has {} free of {} ({percent} %)", size(free), size(total));
    let advice = "free disk space: when the disk is full, no jobs are accepted and none can end; acknowledged data is not lost";
    match percent {
        _ if percent < FREE.1 => Some(Finding::error("disk", what, advice)),
        _ if percent < FREE.0 => Some(Finding::warning("disk", what, advice)),
        _ => None,
    }
}

fn render(findings: &[Finding], summary: Option<&Summary>, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        };
        let since = finding
            .since
            .and_then(|since| now.signed_duration_since(since).to_std().ok())
            .map(|span| format!(" (since {})", duration(span)))
            .unwrap_or_default();
        let _ = writeln!(text, "{severity:<8} {}: {}{since}", finding.topic, one_line(&finding.what, 1_000));
        let _ = writeln!(text, "{:<8} to do: {}\n", "", one_line(&finding.r#do, 1_000));
    }
    text.push_str(&verdict(findings));
    if let Some(summary) = summary {
        text.push_str(&in_short(summary));
    }
    text
}

fn verdict(findings: &[Finding]) -> String {
    let number = |severity, one: &str| {
        let found = findings.iter().filter(|finding| finding.severity == severity).count();
        match found {
            0 => None,
            1 => Some(format!("1 {one}")),
            many => Some(format!("{many} {one}s")),
        }
    };
    let counts: Vec<String> = [(Severity::Error, "error"), (Severity::Warning, "warning")]
        .into_iter()
        .filter_map(|(severity, one)| number(severity, one))
        .collect();
    if counts.is_empty() {
        "No problems found.\n".to_owned()
    } else {
        format!("{}.\n", counts.join(", "))
    }
}

fn in_short(summary: &Summary) -> String {
    let mut parts = Vec::new();
    parts.extend(summary.nats.as_ref().map(|version| format!("nats-server {version}")));
    if let (Some(events), Some((bytes, max))) = (summary.events, summary.log_bytes) {
        parts.push(format!("{events} events in {} of {}", size(bytes), size(max)));
    }
    parts.extend(summary.workers.map(|workers| match workers {
        1 => "1 live worker".to_owned(),
        many => format!("{many} live workers"),
    }));
    if let (Some(running), Some(waiting)) = (summary.running, summary.waiting) {
        parts.push(format!("{running} jobs with workers, {waiting} waiting"));
    }
    format!("{}.\nDurability: {}.\n", parts.join("; "), summary.durability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_said_to_fill_up_before_it_is_full() {
        let severity = |free| scarce("/data", free, 1_000).map(|finding| finding.severity);
        assert_eq!([severity(500), severity(100)], [None, None]);
        assert_eq!([severity(99), severity(49)], [Some(Severity::Warning), Some(Severity::Error)]);
        assert_eq!(scarce("/proc", 0, 0), None);
    }

    #[test]
    fn findings_are_read_one_by_one_and_counted() {
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1);
        let findings = [
            Finding::error("nats", "NATS is away", "start it").since(Some(DateTime::UNIX_EPOCH)),
            Finding::warning("jobs", "2 jobs are dead", "requeue them"),
            Finding::notice("workers", "w is cordoned", "nothing"),
        ];
        let text = render(&findings, None, now);
        assert_eq!(
            text,
            "ERROR    nats: NATS is away (since 1h 0m)\n         to do: start it\n\n\
             warning  jobs: 2 jobs are dead\n         to do: requeue them\n\n\
             notice   workers: w is cordoned\n         to do: nothing\n\n1 error, 1 warning.\n"
        );
        assert!(render(&findings[2..], None, now).ends_with("No problems found.\n"));
    }
}
