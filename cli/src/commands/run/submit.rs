//! From a plan to a job: hash, send what is missing, submit.

use std::{collections::BTreeMap, fmt::Display};

use bus::{
    ids::JobId,
    spec::{Resources, submission::Submission},
};
use client::{Client, Error};
use model::Submitted;
use reqwest::Method;

use super::{
    Brought, RunArgs,
    interrupt::{Heard, Interrupts},
    layers,
    plan::Plan,
    policy::Policies,
    stage::stage,
};
use crate::{
    bring::Sent,
    values::{ByteSize, Cpus, Pair, Span},
};

/// Submits a job, with its files in the store; says also what it is given.
///
/// # Errors
/// If a file cannot be read or sent, or the grid refuses the job.
pub(crate) async fn submit(client: &Client, args: &RunArgs, plan: Plan, policies: &Policies) -> anyhow::Result<Answered> {
    let (submission, _, mut given) = stage(client, args, plan, Vec::new(), policies).await?;
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
        Ok(submitted) => {
            let job: Submitted = submitted?;
            if job.existed || job.reused {
                // It was given what its own submission names.
                given = Brought::of_job(client, job.id).await.given;
            }
            Answered::Accepted(Box::new(Accepted { job, given, interrupts }))
        }
        Err(signal) => {
            let command = id.map_or_else(|| "rgrid list".to_owned(), |id| format!("rgrid status {id}"));
            crate::output::say!("interrupted before the grid answered: the job may be accepted; `{command}` tells");
            Answered::Interrupted(signal)
        }
    })
}

/// What came of a submission.
pub(crate) enum Answered {
    /// The job is accepted.
    Accepted(Box<Accepted>),
    /// A signal came before the answer.
    Interrupted(Heard),
}

/// A job that is accepted.
pub(crate) struct Accepted {
    pub(crate) job: Submitted,
    /// What it was given.
    pub(crate) given: Sent,
    /// Signals are to be listened to from now on.
    pub(crate) interrupts: Interrupts,
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

/// The variables of a script's own first line, behind those that the user gives it.
pub(crate) fn with_own(own: BTreeMap<String, String>, args: &RunArgs) -> BTreeMap<String, String> {
    let layers::Heard { env, secrets, .. } = &args.heard;
    let own = own.into_iter().filter(|(name, _)| !secrets.contains_key(name));
    own.chain(env.clone()).collect()
}

/// What the options say of the job; what it runs is left open.
pub(crate) fn submission(args: &RunArgs, policies: &Policies) -> Submission {
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
