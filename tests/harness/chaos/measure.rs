//! What the faults came to: how many jobs they hit, and how long it took until those ran elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use bus::ids::JobId;
use serde::Serialize;

use super::{
    Micros,
    check::{Evidence, Kind, Verdict},
    fault::{Fault, Harm, Part},
    ledger::Tale,
};

/// One line of the table: a kind of fault.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// The fault.
    pub fault: String,
    /// How often it was done.
    pub tried: usize,
    /// Jobs that it could have harmed: held by the worker, or, where it hit a service, not ended.
    pub hit: usize,
    /// Of those that a worker held, how many were given to another attempt.
    pub moved: usize,
    /// Jobs among them that are lost.
    pub lost: usize,
    /// Jobs among them that ended twice, or by the wrong attempt.
    pub doubled: usize,
    /// From the fault to the first word in the log about it, in milliseconds.
    pub detection_ms: Vec<i64>,
    /// From the fault to the start of each moved job's next attempt, in milliseconds. For a broker, from its mend to the next
    /// word of a job that it stores.
    pub restart_ms: Vec<i64>,
}

/// A value that so many percent of the values do not pass.
#[must_use]
pub fn percentile(values: &[i64], percent: usize) -> Option<i64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The table: a line for each kind of fault.
#[must_use]
pub fn rows(evidence: &Evidence, verdict: &Verdict) -> Vec<Row> {
    let mut rows: BTreeMap<(&str, Harm), Row> = BTreeMap::new();
    let of = |kind: Kind| {
        let violations = verdict.violations.iter().filter(move |violation| violation.kind == kind);
        violations.filter_map(|violation| violation.job).collect::<BTreeSet<_>>()
    };
    let (lost, doubled) = (of(Kind::Lost), of(Kind::Doubled));
    for fault in &evidence.faults {
        let row = rows.entry((fault.part.kind(), fault.harm)).or_insert_with(|| Row {
            fault: format!("{}: {}", fault.part.kind(), fault.harm),
            ..Row::default()
        });
        row.tried += 1;
        let hit = measure(evidence, fault, row);
        row.hit += hit.len();
        row.lost += hit.intersection(&lost).count();
        row.doubled += hit.intersection(&doubled).count();
    }
    rows.into_values().collect()
}

fn measure(evidence: &Evidence, fault: &Fault, row: &mut Row) -> BTreeSet<JobId> {
    match fault.part.worker() {
        Some(worker) => of_worker(evidence, fault, &worker, row),
        None => of_service(evidence, fault, row),
    }
}

fn of_worker(evidence: &Evidence, fault: &Fault, worker: &str, row: &mut Row) -> BTreeSet<JobId> {
    let ledger = &evidence.ledger;
    let held = ledger.held(worker, fault.from);
    // What a second fault delayed tells nothing of the first.
    let alone = |until: Micros| {
        let hides = |other: &&Fault| matches!(other.part, Part::Nats | Part::Watcher(_) | Part::Runner(_)) && *other != fault;
        !evidence
            .faults
            .iter()
            .filter(hides)
            .any(|other| other.from < until && other.to > fault.from)
    };
    let mut first: Option<Micros> = ledger
        .losses
        .iter()
        .filter(|(at, lost)| lost.as_str() == worker && *at >= fault.from && *at <= fault.to + 10_000_000)
        .map(|(at, _)| *at)
        .min();
    for (_, tale, one) in &held {
        let Some(given_up) = one.given_up.filter(|at| *at <= fault.to + 10_000_000) else {
            continue;
        };
        row.moved += 1;
        first = Some(first.map_or(given_up, |first| first.min(given_up)));
        let next = tale.tries.iter().find(|other| other.number == one.number.next());
        if let Some(started) = next.and_then(|next| next.started).filter(|started| alone(*started)) {
            row.restart_ms.push((started - fault.from) / 1000);
        }
    }
    row.detection_ms
        .extend(first.filter(|first| alone(*first)).map(|first| (first - fault.from) / 1000));
    held.into_iter().map(|(job, ..)| job).collect()
}

fn of_service(evidence: &Evidence, fault: &Fault, row: &mut Row) -> BTreeSet<JobId> {
    let tales = evidence.ledger.jobs.iter();
    if fault.part == Part::Nats {
        let next = evidence.ledger.jobs.values().flat_map(words).filter(|at| *at >= fault.to).min();
        row.restart_ms.extend(next.map(|next| (next - fault.to) / 1000));
    }
    let there = tales.filter(|(_, tale)| tale.submitted <= fault.to && tale.ended().is_none_or(|ended| ended >= fault.from));
    there.map(|(job, _)| *job).collect()
}

/// When something was said of a job.
fn words(tale: &Tale) -> impl Iterator<Item = Micros> {
    let of_tries = tale.tries.iter().flat_map(|one| [Some(one.claimed), one.started, one.closed()]);
    of_tries.flatten().chain([tale.submitted])
}

/// The table as text.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<32} {:>5} {:>8} {:>6} {:>5} {:>8} {:>16} {:>16}\n",
        "fault", "tried", "jobs hit", "moved", "lost", "doubled", "detected p50/p99", "restart p50/p99"
    );
    for row in rows {
        let times = |values: &[i64]| match (percentile(values, 50), percentile(values, 99)) {
            (Some(half), Some(most)) => format!("{half}/{most} ms"),
            _ => "-".to_owned(),
        };
        text.push_str(&format!(
            "{:<32} {:>5} {:>8} {:>6} {:>5} {:>8} {:>16} {:>16}\n",
            row.fault,
            row.tried,
            row.hit,
            row.moved,
            row.lost,
            row.doubled,
            times(&row.detection_ms),
            times(&row.restart_ms)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values = (1..=200).rev().collect::<Vec<_>>();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(100), Some(198)));
        assert_eq!(
            (percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 50)),
            (Some(7), Some(7), None)
        );
    }
}
