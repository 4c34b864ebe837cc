//! `rgrid run` with many jobs: planned, sent as one, followed.

use std::{env, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use api::view::{BatchAnswer, BatchSubmission, MemberSubmission};
use bus::{ids::BatchId, spec::InputFile, submission::Submission};
use reqwest::Method;

use super::{
    follow::{Followed, Manner, follow},
    items::{Item, items},
    outputs::Homes,
    report, reuse,
};
use crate::{
    client::Client,
    commands::run::{RunArgs, say, submit::stage, wishes},
    failure::usage,
    output::{counted, print_json, print_line},
};

/// The pause before a batch that did not arrive is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is.
const TRIES: u32 = 60;

/// Submits a batch, and follows it unless the user wants to go on at once.
pub(in crate::commands::run) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    if args.idempotency_key.is_some() {
        return Err(usage("--idempotency-key would make all jobs of a batch the same; leave it out"));
    }
    if args.dry_run {
        return Err(usage("--dry-run shows one job; leave out what makes it many, or name one file"));
    }
    let stdin = args.files.stdin.as_deref().map(Path::as_os_str);
    if [stdin, args.many.each_line.as_deref()]
        .iter()
        .all(|name| name.is_some_and(|name| name == "-"))
    {
        return Err(usage("--each-line - and -i - both read standard input; give one of them a file"));
    }
    let cwd = env::current_dir().context("cannot tell which directory this is; change to one that exists")?;
    let items = items(&args.many, &cwd)?;
    args.policy.check()?;
    args.files.check_outputs()?;
    let client = args.connect.client()?;
    let policies = args.policy.resolve(&client).await?;
    let plan = |item: &Item| crate::commands::run::plan::plan(&cwd, &item.words(&args.words)?, &wishes(&args));
    let mut plans = items.iter().map(plan).collect::<anyhow::Result<Vec<_>>>()?;
    // The same for each, where it is said: what happens to be piped in is not meant for many.
    let stdin = match &args.files.stdin {
        Some(_) => args.files.stdin().await?,
        None => None,
    };
    for plan in &mut plans {
        plan.stdin = stdin.as_ref().map(|stdin| stdin.path.clone());
    }
    let submissions = stage(&client, &args, plans, &policies, |_, _| ()).await?;
    if submissions.iter().any(|one| one.dependencies != submissions[0].dependencies) {
        return Err(usage(
            "the jobs of a batch have the same packages, and these scripts name different ones; name those of all with --requirements, or run them one by one",
        ));
    }
    let names: Vec<String> = items.iter().map(Item::name).collect();
    let mut batch = batch(&args, &items, submissions);
    let mut homes = (!args.no_download).then(|| Homes::new(Path::new("outputs"), &names, args.many.flat));
    let mut names = names;
    if args.reuse {
        let made = reuse::take(&client, &args.namespace, &mut batch, homes.as_ref()).await?;
        if batch.members.is_empty() {
            return reuse::all_made(&made, &args);
        }
        names = made.left_of(names);
        homes = homes.map(|homes| homes.only(&made.left));
    }
    let answer = send(&client, &args.namespace, &batch).await?;
    answer.warning.iter().for_each(|warning| say::warning(warning));
    if args.detach {
        if args.json {
            print_json(&answer)?;
        } else {
            print_line(&answer.id.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = counted(answer.total as usize, "job");
    eprintln!("rgrid: batch {} of {jobs} is submitted", answer.id);
    let manner = Manner {
        detach_on_interrupt: args.detach_on_interrupt,
    };
    let followed = Box::pin(follow(&client, answer.id, answer.total, homes, manner)).await?;
    match followed {
        Followed::Ended(progress) => report::end(&client, answer.id, &progress, &names, args.json).await,
        Followed::Detached => {
            eprintln!("rgrid: batch {0} goes on; `rgrid attach {0}` follows it", answer.id);
            Ok(ExitCode::from(130))
        }
    }
}

/// What the members share, once, and of each what is its own.
fn batch(args: &RunArgs, items: &[Item], submissions: Vec<Submission>) -> BatchSubmission {
    let first = submissions.first().cloned().unwrap_or_default();
    let everywhere = |input: &InputFile| submissions.iter().all(|one| one.inputs.contains(input));
    let shared: Vec<InputFile> = first.inputs.iter().filter(|input| everywhere(input)).cloned().collect();
    let tree = first.tree.filter(|_| submissions.iter().all(|one| one.tree == first.tree));
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
    let members = items.iter().zip(submissions).map(|(item, one)| MemberSubmission {
        item: item.name(),
        command: one.command,
        inputs: one.inputs.into_iter().filter(|input| !shared.contains(input)).collect(),
        tree: if tree.is_some() { None } else { one.tree },
        env: item.env().into_iter().collect(),
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
            inputs: shared,
            tree,
            ..first
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
                    eprintln!("rgrid: {error} Trying again.");
                }
                tries += 1;
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
