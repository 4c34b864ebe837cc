//! A job is followed to its end: its output is shown, its outputs are saved, and its exit code becomes ours.

use std::process::ExitCode;

use bus::job::State;
use client::Client;
use model::{JobView, Submitted};
use serde_json::json;

use super::{
    follow_options::FollowOptions,
    interrupt::Interrupts,
    messages,
    missing_files::LastWords,
    save_context::Brought,
    save_outputs,
    wait::{Manner, Waited, wait},
};
use crate::output::print_json;

/// The exit code of a program whose output nobody reads, 128 + SIGPIPE.
const UNREAD: u8 = 141;

/// Shows a job until it ends, fetches its outputs, and ends as it ended.
///
/// # Errors
/// If it cannot be followed, or its outputs cannot be had.
pub(crate) async fn follow(
    client: &Client,
    args: FollowOptions,
    submitted: &Submitted,
    brought: &Brought,
    interrupts: &mut Interrupts,
) -> anyhow::Result<ExitCode> {
    let manner = Manner {
        on_stderr: args.json,
        verbose: args.verbose,
    };
    match Box::pin(wait(client, submitted, manner, interrupts)).await? {
        Waited::Ended(job, words) => {
            let ending = Box::pin(end(client, args, &job, (brought, &words)));
            match interrupts.unless(ending).await {
                Ok(ended) => ended,
                Err(signal) => {
                    messages::unsaved(job.id);
                    Ok(signal.into())
                }
            }
        }
        Waited::Detached(signal) => {
            messages::detached(submitted.id);
            // Not 0: what follows in a script must not believe that the job is done.
            Ok(signal.into())
        }
        Waited::Left(signal) => Ok(signal.into()),
        Waited::Unread => Ok(ExitCode::from(UNREAD)),
    }
}

/// The job ended: its outputs come here, and its end becomes ours.
async fn end(client: &Client, args: FollowOptions, job: &JobView, (brought, words): (&Brought, &LastWords)) -> anyhow::Result<ExitCode> {
    // Before anything is saved that the job itself made.
    let missed = if job.exit_code.is_some() {
        brought.missed(words)
    } else {
        Vec::new()
    };
    let saved = if args.no_download {
        save_outputs::Saved::default()
    } else {
        Box::pin(save_outputs::save(client, args, job, brought)).await?
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
    missed.iter().for_each(messages::missed);
    saved.say(job.id, args.verbose);
    Ok(exit_code(job, saved.report.is_whole()))
}

/// The script's own exit code; 1 where it is 0 and an output could not be saved.
fn exit_code(job: &JobView, is_whole: bool) -> ExitCode {
    let code = match job.state {
        State::Succeeded => i32::from(!is_whole),
        _ => job.exit_code.unwrap_or(1),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
