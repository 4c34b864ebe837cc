//! Who left the most in the store.

use std::{cmp::Reverse, collections::HashMap};

use bus::ids::{BatchId, JobId};

use super::fold::Left;
use crate::view::{BatchUse, JobUse};

/// How many are shown.
const MOST: usize = 10;

/// The jobs and the batches that left the most, the largest first. Those that left nothing are not among them.
pub(super) fn top(left: &[(Left, u64)]) -> (Vec<JobUse>, Vec<BatchUse>) {
    let mut jobs: HashMap<JobId, JobUse> = HashMap::new();
    for (left, bytes) in left {
        let one = jobs.entry(left.job).or_insert_with(|| JobUse {
            job: left.job,
            batch: left.batch,
            bytes: 0,
            expires_at: None,
        });
        one.bytes += bytes;
        one.expires_at = left.until;
    }
    jobs.retain(|_, one| one.bytes > 0);
    let mut batches: HashMap<BatchId, BatchUse> = HashMap::new();
    for one in jobs.values() {
        if let Some(batch) = one.batch {
            let of = batches.entry(batch).or_insert(BatchUse { batch, jobs: 0, bytes: 0 });
            of.jobs += 1;
            of.bytes += one.bytes;
        }
    }
    let mut jobs: Vec<JobUse> = jobs.into_values().collect();
    jobs.sort_unstable_by_key(|one| (Reverse(one.bytes), one.job));
    jobs.truncate(MOST);
    let mut batches: Vec<BatchUse> = batches.into_values().collect();
    batches.sort_unstable_by_key(|one| (Reverse(one.bytes), one.batch));
    batches.truncate(MOST);
    (jobs, batches)
}
