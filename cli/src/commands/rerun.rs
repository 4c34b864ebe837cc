//! `rgrid rerun`: a job once more, and whether it came to the same.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context as _;
use bus::ids::{Digest, JobId};
use clap::Args;
use client::{Client, bounded::unless_silent};
use futures::TryStreamExt as _;
use model::{ArtifactView, Artifacts, JobView, Submitted};
use reqwest::Method;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    connect::Connect,
    find::{find_job, until_ended},
    output::{one_line, print, print_json, print_line},
    run::{Brought, FollowOptions, follow, interrupt::Interrupts, submit::unsure},
};

const EXAMPLES: &str = "\
Examples:
  rgrid rerun last              again: the same files, arguments, variables and limits, in the same image (by its digest)
  rgrid rerun --verify 0190f3c2   whether it comes to the same, bit by bit; ends with 1 where it does not

A secret has the value that it has now. What a script asks of the network, the clock or chance is its own affair.";

/// Run a job once more, exactly as it ran
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct RerunArgs {
    /// Which job: an id, a part of one, or `last`
    #[arg(value_name = "JOB")]
    job: String,
    /// Say whether it comes to the same, or what differs: exit code, what it prints, outputs
    #[arg(long, conflicts_with = "detach")]
    verify: bool,
    /// Return at once, and print the new job's id
    #[arg(long, short)]
    detach: bool,
    /// Let the job go on at Ctrl-C, without asking
    #[arg(long, env = "RGRID_DETACH_ON_INTERRUPT")]
    detach_on_interrupt: bool,
    /// Leave the outputs in the store; `rgrid download` fetches them
    #[arg(long)]
    no_download: bool,
    /// What it removes or renames of the files that it was given stays here
    #[arg(long)]
    keep_deleted: bool,
    /// Answer in JSON: the job when it ended, or with --verify what differs
    #[arg(long)]
    json: bool,
    /// Say on which worker the job runs, and what came back
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn rerun(args: RerunArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let job = find_job(&client, &args.job).await?;
    if args.verify {
        let before: JobView = client.get(&format!("/v1/jobs/{job}"), &()).await?;
        if !before.state.is_end() {
            anyhow::bail!(
                "job {job} is {}, and there is nothing to compare with yet; wait for it: rgrid logs -f {job}",
                before.state
            );
        }
    }
    let new = JobId::new();
    let path = format!("/v1/jobs/{job}/rerun");
    let request = || client.request(Method::POST, &path).json(&json!({ "id": new }));
    let mut interrupts = Interrupts::new(args.detach_on_interrupt)?;
    let submitted: Submitted = match interrupts.await_answer(client.insist(request)).await {
        Ok(answer) => answer.map_err(|error| unsure(error, "job", &new))?,
        Err(signal) => {
            crate::output::say!("interrupted before the grid answered: the job may be accepted; `rgrid status {new}` tells");
            return Ok(signal.into());
        }
    };
    if args.verify {
        let verifying = Box::pin(verify(&client, job, submitted.id, args.json));
        return match interrupts.unless(verifying).await {
            Ok(verified) => verified,
            Err(signal) => {
                crate::output::say!("interrupted; job {0} goes on, `rgrid cancel {0}` ends it", submitted.id);
                Ok(signal.into())
            }
        };
    }
    if args.detach {
        if args.json {
            print_json(&submitted)?;
        } else {
            print_line(&submitted.id.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.verbose {
        crate::output::say!("job {} repeats {job}", submitted.id);
    }
    let shown = FollowOptions {
        no_download: args.no_download,
        keep_deleted: args.keep_deleted,
        json: args.json,
        verbose: args.verbose,
    };
    let brought = Brought::of_job(&client, submitted.id).await;
    Box::pin(follow(&client, shown, &submitted, &brought, &mut interrupts)).await
}

/// What a job came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Came {
    state: String,
    exit_code: Option<i32>,
    stdout: Digest,
    stderr: Digest,
    /// Content and whether it may be executed, by path.
    outputs: BTreeMap<String, (Digest, bool)>,
}

/// What differs between two jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Difference {
    /// What: `exit code`, `stdout`, `stderr`, or an output's path.
    what: String,
    /// How: `changed`, `added` or `removed`.
    how: &'static str,
}

async fn verify(client: &Client, before: JobId, after: JobId, as_json: bool) -> anyhow::Result<ExitCode> {
    until_ended(client, after).await?;
    let (was, is) = (come_to(client, before).await?, come_to(client, after).await?);
    let differences = compare(&was, &is);
    let same = differences.is_empty();
    if as_json {
        print_json(&serde_json::json!({ "job": before, "rerun": after, "equal": same, "differences": differences }))?;
    } else if same {
        let outputs = is.outputs.len();
        print_line(&format!(
            "job {after} came to the same as {before}, bit by bit: exit code, stdout, stderr, {outputs} outputs"
        ))?;
    } else {
        let lines: String = differences
            .iter()
            .map(|one| format!("  {} {}\n", one.how, one_line(&one.what, 500)))
            .collect();
        print(&format!("job {after} differs from {before}:\n{lines}"))?;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn come_to(client: &Client, job: JobId) -> anyhow::Result<Came> {
    let view: JobView = client.get(&format!("/v1/jobs/{job}"), &()).await?;
    let found: Artifacts = client.get(&format!("/v1/jobs/{job}/artifacts"), &()).await?;
    let output = |file: ArtifactView| (file.path.to_string(), (file.sha256, file.executable));
    Ok(Came {
        state: view.state.to_string(),
        exit_code: view.exit_code,
        stdout: printed(client, job, "stdout").await?,
        stderr: printed(client, job, "stderr").await?,
        outputs: found.artifacts.into_iter().map(output).collect(),
    })
}

/// The hash of what a job's last attempt printed, as it comes: it may be long.
async fn printed(client: &Client, job: JobId, stream: &str) -> anyhow::Result<Digest> {
    let request = client
        .request(Method::GET, &format!("/v1/jobs/{job}/logs"))
        .query(&[("stream", stream)]);
    let mut pieces = std::pin::pin!(unless_silent(client.send(request).await?));
    let mut hasher = Sha256::new();
    while let Some(piece) = pieces
        .try_next()
        .await
        .with_context(|| format!("the log of job {job} broke off; try again"))?
    {
        hasher.update(&piece);
    }
    Ok(Digest::finish(hasher))
}

fn compare(was: &Came, is: &Came) -> Vec<Difference> {
    let changed = |what: &str| Difference {
        what: what.to_owned(),
        how: "changed",
    };
    let mut all = Vec::new();
    if was.exit_code != is.exit_code || was.state != is.state {
        let word = |one: &Came| match one.exit_code {
            Some(code) => format!("{} ({code})", one.state),
            None => one.state.clone(),
        };
        all.push(changed(&format!("exit code: {} before, {} now", word(was), word(is))));
    }
    all.extend((was.stdout != is.stdout).then(|| changed("stdout")));
    all.extend((was.stderr != is.stderr).then(|| changed("stderr")));
    let paths: std::collections::BTreeSet<&String> = was.outputs.keys().chain(is.outputs.keys()).collect();
    all.extend(paths.into_iter().filter_map(|path| {
        let how = match (was.outputs.get(path), is.outputs.get(path)) {
            (Some(before), Some(now)) if before == now => return None,
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
            (None, _) => "added",
        };
        let what = path.clone();
        Some(Difference { what, how })
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named_once() {
        let content = |text: &str| (Digest::of(text.as_bytes()), false);
        let outputs = |files: &[(&str, &str)]| files.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect();
        let was = Came {
            state: "succeeded".to_owned(),
            exit_code: Some(0),
            stdout: Digest::of(b"a"),
            stderr: Digest::of(b""),
            outputs: outputs(&[("same", "1"), ("changed", "1"), ("gone", "1")]),
        };
        assert!(compare(&was, &was).is_empty());
        let is = Came {
            state: "failed".to_owned(),
            exit_code: Some(3),
            stdout: Digest::of(b"b"),
            outputs: outputs(&[("same", "1"), ("changed", "2"), ("new", "1")]),
            stderr: was.stderr,
        };
        let said: Vec<String> = compare(&was, &is).iter().map(|one| format!("{} {}", one.how, one.what)).collect();
        let expected = [
            "changed exit code: succeeded (0) before, failed (3) now",
            "changed stdout",
            "changed changed",
            "removed gone",
            "added new",
        ];
        assert_eq!(said, expected);
    }
}
