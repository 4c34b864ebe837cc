//! From a plan to a job: hash, send what is missing, submit.

use std::fmt::Display;

use bus::{ids::JobId, spec::submission::Submission};
use client::{Client, Error};
use model::Submitted;
use reqwest::Method;

use super::{
    Brought, RunArgs,
    args::policy::Policies,
    interrupt::{Heard, Interrupts},
    plan::Plan,
    stage::stage,
};
use crate::saving::Sent;

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
