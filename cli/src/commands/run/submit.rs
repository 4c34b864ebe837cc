//! From a plan to a job: hash, send what is missing, submit.

use api::view::Submitted;
use bus::{
    spec::{InputFile, Resources},
    submission::Submission,
};
use reqwest::Method;

use super::{RunArgs, plan::Plan};
use crate::{
    client::{Client, hash, upload},
    output::Bar,
    values::{ByteSize, Cpus, Pair, Span},
};

/// Submits a job, with its files in the store.
///
/// # Errors
/// If a file cannot be read or sent, or the grid refuses the job.
pub(super) async fn submit(client: &Client, args: &RunArgs, plan: Plan) -> anyhow::Result<Submitted> {
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
    let submission = submission(args, plan.command, plan.runtime, inputs);
    let request = client
        .request(Method::POST, "/v1/jobs")
        .query(&[("namespace", &args.namespace)])
        .json(&submission);
    Ok(client.json(request).await?)
}

fn submission(args: &RunArgs, command: Vec<String>, runtime: Option<String>, inputs: Vec<InputFile>) -> Submission {
    let pairs = |pairs: &[Pair]| pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
    Submission {
        command,
        runtime,
        image: args.image.clone(),
        executor: args.executor.map(Into::into),
        name: args.name.clone(),
        inputs,
        files: Vec::new(),
        env: pairs(&args.env),
        resources: resources(args.cpu, args.memory),
        timeout_ms: args.timeout.map(Span::millis),
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
