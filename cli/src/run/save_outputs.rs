//! Saves the outputs of an ended job on this machine.

use bus::{
    ids::JobId,
    job::{Outcome, State},
};
use client::Client;
use model::{ArtifactView, Artifacts, AttemptOutcome, JobView};

use super::{SaveContext, follow_options::FollowOptions, plan::original_path};
use crate::{
    output::{counted, size},
    saving::{Report, SaveMode, SaveTarget, save_all},
};

/// The result.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// The job's outputs.
    pub(crate) outputs: Vec<ArtifactView>,
    /// Which outputs were saved, replaced or refused.
    pub(crate) report: Report,
    /// Whether the job was stopped, so that files that it removed are kept here.
    was_killed: bool,
}

impl Saved {
    /// Reports problems; with `verbose`, also successes.
    pub(crate) fn say(&self, job: JobId, verbose: bool) {
        let report = &self.report;
        if verbose && !self.outputs.is_empty() {
            let outputs = counted(report.saved.len() + report.same, "output");
            crate::output::say!("saved {outputs} ({})", size(report.bytes));
        }
        if verbose && !report.removed.is_empty() {
            crate::output::say!("removed {}, as the job did", counted(report.removed.len(), "file"));
        }
        for line in report.lines(&job) {
            crate::output::say!("{line}");
        }
        if report.left > 0 {
            let why = if self.was_killed {
                "the job did not end on its own"
            } else {
                "not every output could be saved"
            };
            let stay = if report.left == 1 { "stays" } else { "stay" };
            let files = counted(report.left, "file");
            crate::output::say!("{files} that the job removed {stay} here, because {why}");
        }
    }
}

/// Downloads and saves a job's outputs.
///
/// # Errors
/// If the list of outputs cannot be fetched.
pub(crate) async fn save(client: &Client, args: FollowOptions, job: &JobView, context: &SaveContext) -> anyhow::Result<Saved> {
    let last = job.attempts.last();
    let manifest = last.and_then(|attempt| attempt.manifest.as_ref());
    if manifest.is_none_or(|manifest| manifest.files + manifest.links + manifest.deleted == 0) {
        return Ok(Saved::default());
    }
    let mut found: Artifacts = client.get(&format!("/v1/jobs/{}/artifacts", job.id), &()).await?;
    if args.keep_deleted {
        found.deleted.clear();
    }
    let outcome = last.and_then(|attempt| attempt.outcome.as_ref());
    let ended_itself = matches!(outcome, Some(AttemptOutcome::Finished(Outcome::Succeeded | Outcome::Failed { .. })));
    let mut report = Report {
        unsaved: original_path::hold_back(job.id, &context.original_paths, &context.save_scope, &mut found),
        ..Report::default()
    };
    for (dir, back) in original_path::by_directory(&context.original_paths, &context.base, &found)? {
        let target = SaveTarget {
            job: job.id,
            into: &dir,
            base: &dir,
            mode: SaveMode::AsRun {
                failed: job.state != State::Succeeded,
            },
            sent: &context.inputs_sent,
            removes: ended_itself && report.is_whole(),
            asked: &context.asked,
        };
        report.add(save_all(client, target, back).await);
    }
    Ok(Saved {
        outputs: found.artifacts,
        report,
        was_killed: !ended_itself,
    })
}
