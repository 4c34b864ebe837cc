//! Submits a planned job: stages its inputs, and posts the submission.

use std::fmt::Display;

use bus::{ids::JobId, spec::submission::Submission};
use client::{Client, Error};
use model::Submitted;
use reqwest::Method;

use super::{
    RunArgs, SaveContext,
    args::policy::Policies,
    interrupt::{Interrupts, StopSignal},
    plan::Plan,
    stage::stage,
};
use crate::saving::SentInputs;

/// Stages a job's inputs and submits the job. Also returns the inputs, which saving the outputs needs.
///
/// # Errors
/// If a file cannot be read or sent, or the grid refuses the job.
pub(crate) async fn submit(client: &Client, args: &RunArgs, plan: Plan, policies: &Policies) -> anyhow::Result<SubmitOutcome> {
    let (submission, _, mut inputs_sent) = stage(client, args, plan, Vec::new(), policies).await?;
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
            Some(id) => explain_indeterminate(error, "job", id),
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
                inputs_sent = SaveContext::of_job(client, job.id).await.inputs_sent;
            }
            SubmitOutcome::Accepted(Box::new(Accepted {
                job,
                inputs_sent,
                interrupts,
            }))
        }
        Err(signal) => {
            let command = id.map_or_else(|| "rgrid list".to_owned(), |id| format!("rgrid status {id}"));
            crate::output::say!("interrupted before the grid answered: the job may have been accepted; check with `{command}`");
            SubmitOutcome::Interrupted(signal)
        }
    })
}

/// The result of a submission.
pub(crate) enum SubmitOutcome {
    /// The job is accepted.
    Accepted(Box<Accepted>),
    /// A signal arrived before the API answered.
    Interrupted(StopSignal),
}

/// An accepted job.
pub(crate) struct Accepted {
    pub(crate) job: Submitted,
    /// The inputs of the job.
    pub(crate) inputs_sent: SentInputs,
    /// The signal handlers, which are active from now on.
    pub(crate) interrupts: Interrupts,
}

/// Adds advice to an indeterminate error: the job may exist nevertheless.
pub(crate) fn explain_indeterminate(error: Error, what: &str, id: &dyn Display) -> anyhow::Error {
    if !error.is_indeterminate() {
        return error.into();
    }
    anyhow::Error::new(error).context(format!(
        "it is not known whether {what} {id} was accepted; check with `rgrid status {id}` when the grid answers again"
    ))
}
