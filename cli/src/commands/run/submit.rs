//! From a plan to a job: hash, send what is missing, submit.

use api::view::Submitted;
use bus::{
    spec::{InputFile, Resources},
    submission::Submission,
};
use reqwest::Method;

use super::{RunArgs, plan::Plan, policy::Policies};
use crate::{
    client::{Client, hash, upload},
    output::Bar,
    values::{ByteSize, Cpus, Pair},
};

/// Submits a job, with its files in the store.
///
/// # Errors
/// If a file cannot be read or sent, or the grid refuses the job.
pub(super) async fn submit(client: &Client, args: &RunArgs, plan: Plan, policies: Policies) -> anyhow::Result<Submitted> {
    let bar = Bar::new("reading", plan.inputs.iter().map(|input| input.size).sum());
    let hashed = hash(plan.inputs.iter().map(|input| input.source.clone()).collect(), &bar).await?;
    bar.finish();
    let inputs = plan
        .inputs
        .iter()
        .zip(&hashed)
        .map(|(input, file)| InputFile {
            path: input.path.clone(),
            sha256: file.sha256,
            size: file.size,
            executable: input.executable,
        })
        .collect();
    if !hashed.is_empty() {
        upload(client, hashed).await?;
    }
    let submission = Submission {
        command: plan.command,
        runtime: plan.runtime,
        inputs,
        ..submission(args, policies)
    };
    let request = client
        .request(Method::POST, "/v1/jobs")
        .query(&[("namespace", &args.namespace)])
        .json(&submission);
    Ok(client.json(request).await?)
}

/// What the options say of the job; what it runs is left open.
fn submission(args: &RunArgs, policies: Policies) -> Submission {
    let pairs = |pairs: &[Pair]| pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
    Submission {
        image: args.image.clone(),
        executor: args.executor.map(Into::into),
        name: args.name.clone(),
        env: pairs(&args.env),
        resources: resources(args.cpu, args.memory),
        timeout_ms: policies.timeout_ms,
        queue_timeout_ms: policies.queue_timeout_ms,
        total_timeout_ms: policies.total_timeout_ms,
        grace_ms: policies.grace_ms,
        retry: policies.retry,
        max_losses: policies.max_losses,
        start: policies.start,
        queue: args.queue.clone(),
        priority: args.priority.into(),
        labels: pairs(&args.label),
        key: args.idempotency_key.clone(),
        ..Submission::default()
    }
}

fn resources(cpu: Option<Cpus>, memory: Option<ByteSize>) -> Option<Resources> {
    if cpu.is_none() && memory.is_none() {
        return None;
    }
    let default = Resources::default();
    Some(Resources {
        cpu_milli: cpu.map_or(default.cpu_milli, |cpus| cpus.0),
        memory_bytes: memory.map(|size| size.0),
        cpu_limit: cpu.is_some(),
    })
}
