//! What a job left comes here when it has ended.

use bus::{
    ids::JobId,
    job::{Outcome, State},
};
use client::Client;
use model::{ArtifactView, Artifacts, AttemptOutcome, JobView};

use super::{Brought, follow_options::FollowOptions, plan::original_path};
use crate::{
    output::{counted, size},
    saving::{Manner, Report, Whither, bring},
};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// The job's outputs.
    pub(crate) outputs: Vec<ArtifactView>,
    /// What came of bringing them here.
    pub(crate) report: Report,
    /// Whether the job's own end keeps what it removed.
    was_killed: bool,
}

impl Saved {
    /// Says what the user must know; with `verbose`, also what went well.
    pub(crate) fn say(&self, job: JobId, verbose: bool) {
        let report = &self.report;
        if verbose && !self.outputs.is_empty() {
            let outputs = counted(report.saved.len() + report.same, "output");
            crate::output::say!("{outputs} ({}) came back", size(report.bytes));
        }
        if verbose && !report.removed.is_empty() {
            crate::output::say!("removed {}, as the job did", counted(report.removed.len(), "file"));
        }
        for line in report.lines(&job) {
            crate::output::say!("{line}");
        }
        if report.left > 0 {
            let why = if self.was_killed {
                "the job did not end by itself"
            } else {
                "not every output could be saved"
            };
            let stay = if report.left == 1 { "stays" } else { "stay" };
            let files = counted(report.left, "file");
            crate::output::say!("{files} that the job removed {stay} here, since {why}");
        }
    }
}

/// Brings a job's outputs here.
///
/// # Errors
/// If their list cannot be had.
pub(crate) async fn save(client: &Client, args: FollowOptions, job: &JobView, brought: &Brought) -> anyhow::Result<Saved> {
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
        unsaved: original_path::hold_back(job.id, &brought.homes, &brought.within, &mut found),
        ..Report::default()
    };
    for (dir, back) in original_path::sort(&brought.homes, &brought.base, &found)? {
        let whither = Whither {
            job: job.id,
            into: &dir,
            base: &dir,
            manner: Manner::AsRun {
                failed: job.state != State::Succeeded,
            },
            sent: &brought.given,
            removes: ended_itself && report.is_whole(),
            asked: &brought.asked,
        };
        report.add(bring(client, whither, back).await);
    }
    Ok(Saved {
        outputs: found.artifacts,
        report,
        was_killed: !ended_itself,
    })
}
