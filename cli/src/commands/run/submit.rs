//! From a plan to a job: hash, send what is missing, submit.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
    path::PathBuf,
};

use anyhow::Context as _;
use api::view::Submitted;
use bus::{
    ids::{Digest, JobId},
    spec::{InputFile, Resources},
    submission::Submission,
    tree::{Content, MAX_INLINE_INPUTS, MAX_INLINE_PATHS, Tree, TreeRef},
};
use reqwest::Method;

use super::{
    RunArgs,
    dependencies::Declared,
    interrupt::{Heard, Interrupts},
    plan::{Input, Plan},
    policy::Policies,
};
use crate::{
    client::{Client, Error, Hashed, hash, put_bytes, upload},
    output::Bar,
    values::{ByteSize, Cpus, Pair, Span},
};

/// Submits a job, with its files in the store.
///
/// # Errors
/// If a file cannot be read or sent, or the grid refuses the job.
pub(super) async fn submit(client: &Client, args: &RunArgs, plan: Plan, policies: &Policies) -> anyhow::Result<Sent> {
    let mut submissions = stage(client, args, vec![plan], policies).await?;
    let submission = submissions.pop().context("no job was planned")?;
    // With a key, the key decides which job it is.
    let id = submission.key.is_none().then(JobId::new);
    let submission = Submission { id, ..submission };
    let request = || {
        client
            .request(Method::POST, "/v1/jobs")
            .query(&[("namespace", &args.namespace)])
            .query(if args.reuse { &[("reuse", "true")][..] } else { &[] })
            .json(&submission)
    };
    let answered = async {
        client.insist(request).await.map_err(|error| match &id {
            Some(id) => unsure(error, "job", id),
            // The same command with the same key is the same job.
            None => error.into(),
        })
    };
    // Until now, a signal ended the program and nothing was left behind. From now on, there may be a job.
    let mut interrupts = Interrupts::new(args.detach_on_interrupt)?;
    Ok(match interrupts.await_answer(answered).await {
        Ok(submitted) => Sent::Accepted(Box::new(submitted?), interrupts),
        Err(signal) => {
            let command = id.map_or_else(|| "rgrid list".to_owned(), |id| format!("rgrid status {id}"));
            eprintln!("rgrid: interrupted before the grid answered: the job may be accepted; `{command}` tells");
            Sent::Interrupted(signal)
        }
    })
}

/// What came of a submission.
pub(super) enum Sent {
    /// The job is accepted. Signals are to be listened to from now on.
    Accepted(Box<Submitted>, Interrupts),
    /// A signal came before the answer.
    Interrupted(Heard),
}

/// An error of a request that may have made a job all the same says how to find out.
pub(crate) fn unsure(error: Error, what: &str, id: &dyn Display) -> anyhow::Error {
    if !error.is_indeterminate() {
        return error.into();
    }
    anyhow::Error::new(error).context(format!(
        "it is not known whether {what} {id} was accepted; `rgrid status {id}` tells once the grid answers"
    ))
}

/// Sends the files of all these plans that the store lacks, each once, and makes a submission of each plan.
///
/// # Errors
/// If a file cannot be read or sent.
pub(super) async fn stage(client: &Client, args: &RunArgs, plans: Vec<Plan>, policies: &Policies) -> anyhow::Result<Vec<Submission>> {
    let mut sources: BTreeSet<PathBuf> = plans
        .iter()
        .flat_map(|plan| plan.inputs.iter().map(|input| input.source.clone()))
        .collect();
    sources.extend(plans.iter().filter_map(|plan| plan.stdin.clone()));
    let declared = || plans.iter().filter_map(|plan| plan.dependencies.as_ref());
    sources.extend(declared().flat_map(Declared::sources).cloned());
    let made: BTreeSet<Vec<u8>> = declared().flat_map(Declared::made).cloned().collect();
    let size_of = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let bar = Bar::new("reading", sources.iter().map(size_of).sum());
    let hashed = hash(sources.into_iter().collect(), &bar).await?;
    bar.finish();
    if !hashed.is_empty() {
        let sent = upload(client, hashed.clone()).await?;
        if args.verbose || sent.is_much() {
            eprintln!("rgrid: {sent}");
        }
    }
    for content in made {
        put_bytes(client, Digest::of(&content), content).await?;
    }
    let hashed: HashMap<PathBuf, Hashed> = hashed.into_iter().map(|file| (file.source.clone(), file)).collect();
    let mut submissions = Vec::with_capacity(plans.len());
    for plan in plans {
        let stdin = plan.stdin.as_ref().and_then(|path| hashed.get(path));
        let stdin = stdin.map(|file| Content {
            sha256: file.sha256,
            size: file.size,
        });
        let inputs: Vec<InputFile> = plan.inputs.into_iter().filter_map(|input| as_input(input, &hashed)).collect();
        let named: usize = inputs.iter().map(|input| input.path.as_str().len()).sum();
        let many = inputs.len() > MAX_INLINE_INPUTS || named > MAX_INLINE_PATHS;
        let (inputs, files) = if many { (Vec::new(), inputs) } else { (inputs, Vec::new()) };
        let tree = Tree {
            files,
            links: plan.links,
            dirs: plan.dirs,
        };
        submissions.push(Submission {
            command: plan.command,
            runtime: plan.runtime,
            dependencies: plan.dependencies.map(|declared| declared.resolve(&hashed)),
            inputs,
            tree: send_list(client, &tree).await?,
            stdin,
            name: args.name.clone().or(plan.named),
            ..submission(args, policies)
        });
    }
    Ok(submissions)
}

fn as_input(input: Input, hashed: &HashMap<PathBuf, Hashed>) -> Option<InputFile> {
    let file = hashed.get(&input.source)?;
    Some(InputFile {
        sha256: file.sha256,
        size: file.size,
        executable: input.executable(),
        mode: (!matches!(input.mode, 0o644 | 0o755)).then_some(input.mode),
        path: input.path,
    })
}

/// Stores a list of inputs; nothing where there is nothing to be listed.
async fn send_list(client: &Client, tree: &Tree) -> anyhow::Result<Option<TreeRef>> {
    if tree.is_empty() {
        return Ok(None);
    }
    let (json, reference) = tree.to_json();
    put_bytes(client, reference.sha256, json).await?;
    Ok(Some(reference))
}

/// What the options say of the job; what it runs is left open.
pub(super) fn submission(args: &RunArgs, policies: &Policies) -> Submission {
    let pairs = |pairs: &[Pair]| pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
    Submission {
        image: args.named_image().map(str::to_owned),
        executor: args.executor.map(Into::into),
        name: args.name.clone(),
        outputs: args.files.outputs(),
        keep_outputs_ms: args.files.keep_outputs.map(Span::millis),
        env: args.heard.env.clone(),
        secrets: args.heard.secrets.clone(),
        resources: resources(args.cpu, args.memory, args.shm),
        timeout_ms: policies.timeout_ms,
        queue_timeout_ms: policies.queue_timeout_ms,
        total_timeout_ms: policies.total_timeout_ms,
        grace_ms: policies.grace_ms,
        retry: policies.retry.clone(),
        max_losses: policies.max_losses,
        start: policies.start.clone(),
        queue: args.queue.clone(),
        priority: args.priority.into(),
        labels: pairs(&args.label),
        key: args.idempotency_key.clone(),
        ..Submission::default()
    }
}

fn resources(cpu: Option<Cpus>, memory: Option<ByteSize>, shm: Option<ByteSize>) -> Option<Resources> {
    if cpu.is_none() && memory.is_none() && shm.is_none() {
        return None;
    }
    let default = Resources::default();
    Some(Resources {
        cpu_milli: cpu.map_or(default.cpu_milli, |cpus| cpus.0),
        memory_bytes: memory.map(|size| size.0),
        cpu_limit: cpu.is_some(),
        shm_bytes: shm.map(|size| size.0),
    })
}
