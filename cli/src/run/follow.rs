//! Follows a job to its end: prints its output, saves its output files, and exits with its exit code.

use std::process::ExitCode;

use bus::job::State;
use client::Client;
use model::{JobView, Submitted};
use serde_json::json;

use super::{
    follow_options::FollowOptions,
    interrupt::Interrupts,
    messages,
    missing_files::OutputTail,
    save_context::SaveContext,
    save_outputs,
    wait::{WaitOptions, WaitOutcome, wait},
};
use crate::output::print_json;

/// The exit code after standard output was closed: 128 + SIGPIPE.
const UNREAD: u8 = 141;

/// Prints a job's output until the job ends, saves its output files, and returns its exit code.
///
/// # Errors
/// If the job cannot be followed, or its outputs cannot be fetched.
pub(crate) async fn follow(
    client: &Client,
    args: FollowOptions,
    submitted: &Submitted,
    context: &SaveContext,
    interrupts: &mut Interrupts,
) -> anyhow::Result<ExitCode> {
    let options = WaitOptions {
        on_stderr: args.json,
        verbose: args.verbose,
    };
    match Box::pin(wait(client, submitted, options, interrupts)).await? {
        WaitOutcome::Ended(job, tail) => {
            let ending = Box::pin(end(client, args, &job, (context, &tail)));
            match interrupts.unless(ending).await {
                Ok(ended) => ended,
                Err(signal) => {
                    messages::unsaved(job.id);
                    Ok(signal.into())
                }
            }
        }
        WaitOutcome::Detached(signal) => {
            messages::detached(submitted.id);
            // Not 0: what follows in a script must not believe that the job is done.
            Ok(signal.into())
        }
        WaitOutcome::Left(signal) => Ok(signal.into()),
        WaitOutcome::Unread => Ok(ExitCode::from(UNREAD)),
    }
}

/// Saves the outputs of an ended job, and returns its exit code.
async fn end(
    client: &Client,
    args: FollowOptions,
    job: &JobView,
    (context, tail): (&SaveContext, &OutputTail),
) -> anyhow::Result<ExitCode> {
    // Before anything is saved that the job itself made.
    let missing = if job.exit_code.is_some() {
        context.missing(tail)
    } else {
        Vec::new()
    };
    let saved = if args.no_download {
        save_outputs::Saved::default()
    } else {
        Box::pin(save_outputs::save(client, args, job, context)).await?
    };
    if args.json {
        let mut value = serde_json::to_value(job)?;
        value["outputs"] = json!(saved.outputs);
        value["saved"] = saved.report.to_json();
        print_json(&value)?;
    }
    // A script's own exit code says it all, as it does here.
    if let Some(message) = &job.message {
        crate::output::say!("job {}: {message}", job.id);
    } else if job.exit_code.is_none() {
        crate::output::say!("job {} is {}", job.id, job.state);
    }
    missing.iter().for_each(messages::missing);
    saved.say(job.id, args.verbose);
    Ok(exit_code(job, saved.report.is_whole()))
}

/// The script's exit code, or 1 if that is 0 and an output could not be saved.
fn exit_code(job: &JobView, is_whole: bool) -> ExitCode {
    let code = match job.state {
        State::Succeeded => i32::from(!is_whole),
        _ => job.exit_code.unwrap_or(1),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
