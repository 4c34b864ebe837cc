//! From a plan to a job: hash, send what is missing, submit.

use api::view::Submitted;
use bus::{spec::Resources, submission::Submission};
use reqwest::Method;

use super::{RunArgs, plan::Plan, policy::Policies, stage::stage};
use crate::{
    client::Client,
    values::{ByteSize, Cpus, Pair, Span},
};

/// Submits a job, with its files in the store.
///
/// # Errors
/// If a file cannot be read or sent, or the grid refuses the job.
pub(super) async fn submit(client: &Client, args: &RunArgs, plan: Plan, policies: &Policies) -> anyhow::Result<Submitted> {
    let (submission, _) = stage(client, args, plan, Vec::new(), policies).await?;
    let request = client
        .request(Method::POST, "/v1/jobs")
        .query(&[("namespace", &args.namespace)])
        .query(if args.reuse { &[("reuse", "true")][..] } else { &[] })
        .json(&submission);
    Ok(client.json(request).await?)
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
        resources: resources(args.cpu, args.memory),
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
