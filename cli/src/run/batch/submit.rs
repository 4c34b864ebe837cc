//! `rgrid run` with many jobs: planned, sent as one, followed.

use std::{env, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use bus::{ids::BatchId, spec::submission::Submission};
use client::Client;
use model::{BatchAnswer, BatchSubmission, MemberSubmission};
use reqwest::Method;

use super::{
    follow::follow,
    items::{Item, items},
    outputs::OutputDirs,
    report, reuse,
};
use crate::{
    failure::usage,
    output::{counted, print_json, print_line},
    run::{RunArgs, interrupt::Interrupts, messages, options, plan::plan_batch, stage::stage},
};

/// The pause before a batch that did not arrive is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is.
const TRIES: u32 = 60;

/// Submits a batch, and follows it unless the user wants to go on at once.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    if args.idempotency_key.is_some() {
        return Err(usage("--idempotency-key would make all jobs of a batch the same; leave it out"));
    }
    if args.dry_run {
        return Err(usage(
            "--dry-run shows a single job; leave out the options for batches, or name one file",
        ));
    }
    let stdin = args.files.stdin.as_deref().map(Path::as_os_str);
    if [stdin, args.many.each_line.as_deref()]
        .iter()
        .all(|name| name.is_some_and(|name| name == "-"))
    {
        return Err(usage("--each-line - and -i - both read standard input; give one of them a file"));
    }
    let cwd = env::current_dir().context("cannot determine the current directory; change to a directory that exists")?;
    let items = items(&args.many, &cwd)?;
    args.policy.check()?;
    args.files.check_outputs()?;
    let client = args.connect.client()?;
    let policies = args.policy.resolve(&client).await?;
    let words = items
        .iter()
        .map(|item| item.words(&args.words))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (mut plan, members) = plan_batch(&cwd, &words, &options(&args))?;
    plan.scanned.report(args.verbose);
    // The same for each, where it is said: what happens to be piped in is not meant for many.
    let stdin = match &args.files.stdin {
        Some(_) => args.files.stdin().await?,
        None => None,
    };
    plan.stdin = stdin.as_ref().map(|stdin| stdin.path.clone());
    let (shared, members, _) = stage(&client, &args, plan, members, &policies).await?;
    let names: Vec<String> = items.iter().map(Item::name).collect();
    let mut batch = batch(&args, &items, shared, members);
    let mut output_dirs =
        (!args.no_download).then(|| OutputDirs::new(Path::new("outputs"), &names, args.many.flat).asked(args.resolved.asked.clone()));
    let mut names = names;
    if args.reuse {
        let made = reuse::take(&client, &args.namespace, &mut batch, output_dirs.as_ref()).await?;
        if batch.members.is_empty() {
            return reuse::all_made(&made, &args);
        }
        names = made.left_of(names);
        output_dirs = output_dirs.map(|output_dirs| output_dirs.only(&made.left));
    }
    let mut interrupts = Interrupts::new(args.detach_on_interrupt)?;
    let answer = match interrupts.await_answer(send(&client, &args.namespace, &batch)).await {
        Ok(answer) => answer?,
        Err(signal) => {
            crate::output::say!(
                "interrupted before the grid answered: the batch may have been accepted; check with `rgrid status {}`",
                batch.id
            );
            return Ok(signal.into());
        }
    };
    answer.warning.iter().for_each(|warning| messages::warning(warning));
    if args.detach {
        if args.json {
            print_json(&answer)?;
        } else {
            print_line(&answer.id.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = counted(answer.total as usize, "job");
    crate::output::say!("batch {} of {jobs} is submitted", answer.id);
    let followed = Box::pin(follow(&client, answer.id, answer.total, output_dirs, &mut interrupts)).await?;
    report::followed(&client, answer.id, followed, &names, args.json, &mut interrupts).await
}

/// What the members share, once, and of each what is its own.
fn batch(args: &RunArgs, items: &[Item], shared: Submission, members: Vec<MemberSubmission>) -> BatchSubmission {
    let name = args.name.clone().unwrap_or_else(|| {
        let script = args
            .words
            .first()
            .map(|word| word.to_string_lossy().into_owned())
            .unwrap_or_default();
        let what = args
            .many
            .batch
            .first()
            .cloned()
            .or_else(|| args.many.param.first().cloned())
            .unwrap_or_default();
        format!("{script} {what}").trim_end().to_owned()
    });
    let members = items.iter().zip(members).map(|(item, member)| MemberSubmission {
        item: item.name(),
        env: item.env().into_iter().collect(),
        ..member
    });
    let members = members.collect();
    BatchSubmission {
        id: BatchId::new(),
        name,
        parallel: args.many.parallel,
        max_failures: if args.many.fail_fast { Some(1) } else { args.many.max_failures },
        fail_fast: args.many.fail_fast,
        job: Submission {
            command: Vec::new(),
            ..shared
        },
        members,
    }
}

/// Sends a batch, again and again where the connection breaks: it is submitted once.
async fn send(client: &Client, namespace: &str, batch: &BatchSubmission) -> anyhow::Result<BatchAnswer> {
    let mut tries = 0;
    loop {
        let request = client
            .request(Method::POST, "/v1/batches")
            .query(&[("namespace", namespace)])
            .json(batch);
        match client.json(request).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.may_pass() && tries < TRIES => {
                if tries == 2 {
                    crate::output::say!("{error} Retrying.");
                }
                tries += 1;
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
