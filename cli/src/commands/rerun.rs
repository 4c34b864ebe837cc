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
    output::{counted, one_line, print, print_json, print_line},
    run::{FollowOptions, SaveContext, follow, interrupt::Interrupts, submit::explain_indeterminate},
};

const EXAMPLES: &str = "\
Examples:
  rgrid rerun last              the same files, arguments, variables and limits, in the same image (by digest)
  rgrid rerun --verify 0190f3c2   compare the results byte by byte; exit code 1 if they differ

Secrets have their current values. The result may differ if the script uses the network, the clock or random numbers.";

/// Run a job again, exactly as it ran before
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct RerunArgs {
    /// The job: an id, a part of an id, or `last`
    #[arg(value_name = "JOB")]
    job: String,
    /// Compare the results of the two jobs: exit code, output text, and output files
    #[arg(long, conflicts_with = "detach")]
    verify: bool,
    /// Do not wait for the job; print its id
    #[arg(long, short)]
    detach: bool,
    /// On Ctrl-C, leave the job running, without asking
    #[arg(long, env = "RGRID_DETACH_ON_INTERRUPT")]
    detach_on_interrupt: bool,
    /// Do not download the outputs; `rgrid download` fetches them later
    #[arg(long)]
    no_download: bool,
    /// If the script removes or renames an input file, keep the local file
    #[arg(long)]
    keep_deleted: bool,
    /// Print JSON: the job when it has ended, or with --verify the differences
    #[arg(long)]
    json: bool,
    /// Show which worker runs the job, and which files were sent and saved
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
                "job {job} is {}, and has no result to compare with yet; wait for it with: rgrid logs -f {job}",
                before.state
            );
        }
    }
    let new = JobId::new();
    let path = format!("/v1/jobs/{job}/rerun");
    let request = || client.request(Method::POST, &path).json(&json!({ "id": new }));
    let mut interrupts = Interrupts::new(args.detach_on_interrupt)?;
    let submitted: Submitted = match interrupts.await_answer(client.insist(request)).await {
        Ok(answer) => answer.map_err(|error| explain_indeterminate(error, "job", &new))?,
        Err(signal) => {
            crate::output::say!("interrupted before the grid answered: the job may have been accepted; check with `rgrid status {new}`");
            return Ok(signal.into());
        }
    };
    if args.verify {
        let verifying = Box::pin(verify(&client, job, submitted.id, args.json));
        return match interrupts.unless(verifying).await {
            Ok(verified) => verified,
            Err(signal) => {
                crate::output::say!("interrupted; job {0} continues; cancel it with `rgrid cancel {0}`", submitted.id);
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
    let context = SaveContext::of_job(&client, submitted.id).await;
    Box::pin(follow(&client, shown, &submitted, &context, &mut interrupts)).await
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
        let outputs = counted(is.outputs.len(), "output");
        print_line(&format!(
            "job {after} has the same result as {before}, byte by byte: exit code, stdout, stderr, {outputs}"
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
        .with_context(|| format!("the log of job {job} ended early; try again"))?
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
