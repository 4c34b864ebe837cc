//! The jobs and batches with the largest outputs and logs.

use std::{cmp::Reverse, collections::HashMap};

use bus::ids::BatchId;
use model::{BatchUse, JobUse};

use super::{
    fold::{Fold, Left},
    keeping::Moment,
};

/// How many are shown.
const MOST: usize = 10;
/// How many are looked at before those that left less are dropped.
const TOGETHER: usize = 1_024;

/// The jobs and the batches that left the most, the largest first. Those that left nothing are not among them.
pub(super) fn top(fold: &Fold, at: &Moment) -> (Vec<JobUse>, Vec<BatchUse>) {
    let mut order: Vec<&Left> = fold.left.iter().collect();
    // Stable: what a job's last attempt left stands last.
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
        if jobs.len() >= TOGETHER {
            keep_largest(&mut jobs);
        }
    }
    keep_largest(&mut jobs);
    let mut batches: Vec<BatchUse> = batches.into_values().collect();
    batches.sort_unstable_by_key(|one| (Reverse(one.bytes), one.batch));
    batches.truncate(MOST);
    (jobs, batches)
}

fn keep_largest(jobs: &mut Vec<JobUse>) {
    jobs.sort_unstable_by_key(|one| (Reverse(one.bytes), one.job));
    jobs.truncate(MOST);
}
