//! The jobs and batches with the largest outputs and logs.

use std::{cmp::Reverse, collections::HashMap};

use bus::ids::BatchId;
use model::{BatchUse, JobUse};

use super::{
    fold::{Fold, Left},
    retention::Moment,
};

/// How many are shown.
const SHOWN: usize = 10;
/// How many jobs are collected before the smaller ones are dropped.
const CHUNK: usize = 1_024;

/// The jobs and the batches with the largest outputs and logs, the largest first, without empty ones.
pub(super) fn top(fold: &Fold, at: &Moment) -> (Vec<JobUse>, Vec<BatchUse>) {
    let mut order: Vec<&Left> = fold.left.iter().collect();
    // Stable: a job's last attempt is the last one.
    order.sort_by_key(|left| left.job);
    let mut jobs = Vec::new();
    let mut batches: HashMap<BatchId, BatchUse> = HashMap::new();
    for of_job in order.chunk_by(|a, b| a.job == b.job) {
        let Some(last) = of_job.last() else { continue };
        let job = JobUse {
            job: last.job,
            batch: fold.batch(last),
            bytes: of_job.iter().map(|left| fold.size(left, at)).sum(),
            expires_at: fold.until(last, at),
        };
        if job.bytes == 0 {
            continue;
        }
        if let Some(batch) = job.batch {
            let of = batches.entry(batch).or_insert(BatchUse { batch, jobs: 0, bytes: 0 });
            of.jobs += 1;
            of.bytes += job.bytes;
        }
        jobs.push(job);
        if jobs.len() >= CHUNK {
            keep_largest(&mut jobs);
        }
    }
    keep_largest(&mut jobs);
    let mut batches: Vec<BatchUse> = batches.into_values().collect();
    batches.sort_unstable_by_key(|one| (Reverse(one.bytes), one.batch));
    batches.truncate(SHOWN);
    (jobs, batches)
}

fn keep_largest(jobs: &mut Vec<JobUse>) {
    jobs.sort_unstable_by_key(|one| (Reverse(one.bytes), one.job));
    jobs.truncate(SHOWN);
}
