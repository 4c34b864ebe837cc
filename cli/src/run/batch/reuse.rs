//! Members whose results are there already.

use std::process::ExitCode;

use bus::ids::JobId;
use client::Client;
use futures::{StreamExt as _, stream};
use model::{BatchSubmission, Earlier};
use reqwest::Method;
use serde_json::json;

use super::outputs::{OutputDirs, fetch};
use crate::{
    output::{print_json, print_line},
    run::RunArgs,
    saving::{Report, SaveMode},
};

/// Members whose outputs are fetched at once.
const AT_ONCE: usize = 4;

/// What was made before, and what is left to be made.
#[derive(Debug)]
pub(crate) struct ReusedResults {
    /// The jobs that made it.
    jobs: Vec<JobId>,
    /// The places of the members that are left.
    pub(crate) left: Vec<usize>,
    /// Whether everything that they left is here.
    is_whole: bool,
}

impl ReusedResults {
    /// Of one thing for each member, those of the members that are left.
    pub(crate) fn left_of<T>(&self, all: Vec<T>) -> Vec<T> {
        let mut left = self.left.iter().copied().peekable();
        let is_left = |(place, _): &(usize, T)| left.next_if_eq(place).is_some();
        all.into_iter().enumerate().filter(is_left).map(|(_, one)| one).collect()
    }
}

/// Takes the members out of a batch whose results are there from earlier jobs, and brings those home.
///
/// # Errors
/// If the grid refuses, or an output cannot be saved.
pub(crate) async fn take(
    client: &Client,
    namespace: &str,
    batch: &mut BatchSubmission,
    output_dirs: Option<&OutputDirs>,
) -> anyhow::Result<ReusedResults> {
    let request = client
        .request(Method::POST, "/v1/batches/earlier")
        .query(&[("namespace", namespace)])
        .json(batch);
    let Earlier { jobs } = client.json(request).await?;
    let found = jobs.iter().zip(0..).filter_map(|(job, index)| Some((index, (*job)?)));
    let mut came = Report::default();
    if let Some(output_dirs) = output_dirs {
        let fetches = found
            .clone()
            .map(|(index, job)| fetch(client, job, index, output_dirs, SaveMode::AsRun { failed: false }));
        let mut fetches = stream::iter(fetches.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some(fetched) = fetches.next().await {
            came.add(fetched?);
        }
    }
    let made = ReusedResults {
        jobs: found.map(|(_, job)| job).collect(),
        left: (0..batch.members.len())
            .filter(|place| jobs.get(*place).is_none_or(Option::is_none))
            .collect(),
        is_whole: came.is_whole(),
    };
    for line in came.lines(&"JOB") {
        crate::output::say!("{line}");
    }
    batch.members = made.left_of(std::mem::take(&mut batch.members));
    if !made.jobs.is_empty() {
        crate::output::say!("{} of {} jobs ran before; their results are used", made.jobs.len(), jobs.len());
    }
    Ok(made)
}

/// Nothing is left to be run.
pub(crate) fn all_made(made: &ReusedResults, args: &RunArgs) -> anyhow::Result<ExitCode> {
    if args.json {
        print_json(&json!({ "batch": null, "reused": made.jobs }))?;
    } else if args.detach {
        for job in &made.jobs {
            print_line(&job.to_string())?;
        }
    }
    Ok(if made.is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
