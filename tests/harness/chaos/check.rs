//! The checker. It knows nothing of the grid but what was acknowledged, what the traces say, and what the log says.

use std::{collections::BTreeMap, fmt};

use bus::ids::{Attempt, JobId};

use super::{
    Micros, SECOND,
    fault::{Fault, Harm, Part},
    ledger::{End, Ledger, Stand, Tale, Try},
    trace::Trace,
};

/// How long after a fault is mended what it did may still be seen: a worker is found silent, a frozen one learns of its fence.
const AFTERMATH: Micros = 10 * SECOND;
/// How long the command of a dead runner, or of a fenced attempt whose runner can know, may go on.
const LINGER: Micros = 5 * SECOND;
/// Two clocks of one machine that are read one after the other.
const SLACK: Micros = 2_000;

/// What a run left behind.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Submissions that were acknowledged, and when.
    pub acknowledged: Vec<(JobId, Micros)>,
    /// The log.
    pub ledger: Ledger,
    /// The traces.
    pub traces: Vec<Trace>,
    /// What was done to the grid.
    pub faults: Vec<Fault>,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise of the design.
    pub promise: u8,
    /// What kind it is.
    pub kind: Kind,
    /// Of which job, if of one.
    pub job: Option<JobId>,
    /// What was seen.
    pub what: String,
}

/// Kinds of broken promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged job is not in the log, or never ended.
    Lost,
    /// A job ended twice, or the result of an attempt counted that was given up.
    Doubled,
    /// A word was stored that did not count: it must have been decided against before.
    Unfenced,
    /// Traces and log tell different things.
    Disagreement,
    /// Two attempts ran at once without a reason, or one went on for too long.
    Overlap,
    /// A healthy worker was given up.
    HealthyLost,
    /// A message of the log cannot be read.
    Unreadable,
    /// Tables differ from a rebuild, or an output is not whole.
    Derived,
    /// Something took longer than it may.
    Late,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {}, {:?}: ", self.promise, self.kind)?;
        if let Some(job) = self.job {
            write!(f, "job {job}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Two attempts of one job that ran at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Which job.
    pub job: JobId,
    /// The earlier one.
    pub earlier: Attempt,
    /// The later one.
    pub later: Attempt,
    /// For how long.
    pub micros: Micros,
}

/// What the checker found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Overlaps, those with a reason too.
    pub overlaps: Vec<Overlap>,
    /// How many jobs ended how.
    pub ends: BTreeMap<End, usize>,
    /// Late words that the log holds and that did not count.
    pub refused: u64,
    /// Attempts that came to their end after they were given up: results that were not wanted any more.
    pub unwanted: usize,
}

/// Holds the evidence against the promises.
#[must_use]
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    acknowledged(evidence, &mut verdict);
    for (job, tale) in &evidence.ledger.jobs {
        tell(*job, tale, &mut verdict);
    }
    traces(evidence, &mut verdict);
    losses(evidence, &mut verdict);
    for (sequence, why) in &evidence.ledger.unreadable {
        verdict.add(8, Kind::Unreadable, None, format!("the message at {sequence}: {why}"));
    }
    verdict
}

impl Verdict {
    /// Notes a broken promise.
    pub fn add(&mut self, promise: u8, kind: Kind, job: Option<JobId>, what: String) {
        self.violations.push(Violation { promise, kind, job, what });
    }
}

/// Promise 1: what was acknowledged is in the log, and ended.
fn acknowledged(evidence: &Evidence, verdict: &mut Verdict) {
    for (job, _) in &evidence.acknowledged {
        if !evidence.ledger.jobs.contains_key(job) {
            verdict.add(1, Kind::Lost, Some(*job), "it was acknowledged, and is not in the log".to_owned());
        }
    }
}

/// Promises 1 and 2: each job has one end, and nothing counted that was not its turn.
fn tell(job: JobId, tale: &Tale, verdict: &mut Verdict) {
    verdict.refused += tale.refused;
    if tale.refused > 0 {
        let what = format!("{} words were stored that could not count any more", tale.refused);
        verdict.add(2, Kind::Unfenced, Some(job), what);
    }
    for (sequence, why) in &tale.wrongs {
        verdict.add(2, Kind::Doubled, Some(job), format!("{why} (sequence {sequence})"));
    }
    match tale.ends.as_slice() {
        [(_, end)] => *verdict.ends.entry(*end).or_default() += 1,
        [] => verdict.add(1, Kind::Lost, Some(job), format!("it never ended: {:?}", tale.stand)),
        ends => verdict.add(2, Kind::Doubled, Some(job), format!("it ended {} times: {ends:?}", ends.len())),
    }
    if tale.stand == Stand::Ended && tale.ends.is_empty() {
        verdict.add(1, Kind::Lost, Some(job), "it is over without an end".to_owned());
    }
}

fn traces(evidence: &Evidence, verdict: &mut Verdict) {
    let mut of_jobs: BTreeMap<JobId, Vec<&Trace>> = BTreeMap::new();
    for trace in &evidence.traces {
        of_jobs.entry(trace.job).or_default().push(trace);
    }
    for (job, traces) in &of_jobs {
        let Some(tale) = evidence.ledger.jobs.get(job) else {
            verdict.add(
                1,
                Kind::Disagreement,
                Some(*job),
                "it ran, and the log knows no such job".to_owned(),
            );
            continue;
        };
        for trace in traces {
            one_trace(evidence, tale, trace, verdict);
        }
        overlaps(evidence, tale, traces, verdict);
    }
    for (job, tale) in &evidence.ledger.jobs {
        let none = Vec::new();
        committed(*job, tale, of_jobs.get(job).unwrap_or(&none), verdict);
    }
}

/// What committed ran once, from its start to its end, between its claim and its commit.
fn committed(job: JobId, tale: &Tale, traces: &[&Trace], verdict: &mut Verdict) {
    for one in &tale.tries {
        let of_it = || traces.iter().filter(|trace| trace.attempt == one.number);
        let Some(finished) = one.finished else { continue };
        let mut say = |what: String| verdict.add(2, Kind::Disagreement, Some(job), format!("attempt {}: {what}", one.number));
        match of_it().collect::<Vec<_>>().as_slice() {
            // It could not be run; a grid that says so tells no lie, and whether that may be is for its end to say.
            [] if tale.ends.iter().all(|(_, end)| *end != End::Succeeded) => {}
            [] => say("it committed, and never ran".to_owned()),
            [trace] => match trace.end {
                Some(end) if end > finished + SLACK => say(format!("it committed {} ms before it ended", (end - finished) / 1000)),
                Some(_) => {}
                None if tale.ends.iter().any(|(_, end)| *end == End::Succeeded) => {
                    say("it succeeded, and never came to its end".to_owned());
                }
                None => {}
            },
            several => say(format!("it ran {} times", several.len())),
        }
    }
}

fn one_trace(evidence: &Evidence, tale: &Tale, trace: &Trace, verdict: &mut Verdict) {
    let job = Some(trace.job);
    let Some(one) = tale.tries.iter().find(|one| one.number == trace.attempt) else {
        let what = format!("attempt {} ran (process {}), and nobody claimed it", trace.attempt, trace.pid);
        return verdict.add(2, Kind::Disagreement, job, what);
    };
    if trace.start + SLACK < one.claimed {
        let early = (one.claimed - trace.start) / 1000;
        verdict.add(
            2,
            Kind::Disagreement,
            job,
            format!("attempt {} ran {early} ms before its claim", trace.attempt),
        );
    }
    if one.returned.is_some() {
        let what = format!(
            "attempt {} ran (process {}), and was given back as one that did not",
            trace.attempt, trace.pid
        );
        verdict.add(2, Kind::Disagreement, job, what);
    }
    // A fenced attempt's command is ended as soon as its runner can know; a dead runner's, at once.
    if let Some(given_up) = one.given_up {
        verdict.unwanted += usize::from(trace.end.is_some());
        let can_know = reasons(evidence, one, given_up)
            .map(|fault| fault.to)
            .max()
            .unwrap_or(given_up)
            .max(given_up);
        if trace.last > can_know + LINGER {
            let late = (trace.last - can_know) / 1000;
            let what = format!(
                "attempt {} went on for {late} ms after its runner could know that it was given up",
                trace.attempt
            );
            verdict.add(2, Kind::Overlap, job, what);
        }
    }
}

/// The faults by which a worker may not have known that its attempt was given up.
fn reasons<'a>(evidence: &'a Evidence, one: &'a Try, given_up: Micros) -> impl Iterator<Item = &'a Fault> {
    evidence.faults.iter().filter(move |fault| {
        let its_own = fault.part.worker().is_some_and(|worker| worker == one.worker.as_str());
        let hides = match fault.harm {
            Harm::Freeze | Harm::Cut | Harm::Slow => its_own || fault.part == Part::Nats,
            Harm::Kill | Harm::Restart => fault.part == Part::Nats,
        };
        hides && fault.from <= given_up + AFTERMATH && fault.to >= one.claimed
    })
}

/// Two attempts of a job run at once only where the earlier one's worker could not know.
fn overlaps(evidence: &Evidence, tale: &Tale, traces: &[&Trace], verdict: &mut Verdict) {
    for (index, earlier) in traces.iter().enumerate() {
        for later in traces[index + 1..].iter().filter(|later| later.attempt != earlier.attempt) {
            let Some(one) = tale.tries.iter().find(|one| one.number == earlier.attempt) else {
                continue;
            };
            let job = later.job;
            if one.closed().is_none_or(|closed| later.start + SLACK < closed) {
                let what = format!("attempt {} started before attempt {} was over", later.attempt, earlier.attempt);
                verdict.add(2, Kind::Overlap, Some(job), what);
            }
            let micros = earlier.last.min(later.last) - earlier.start.max(later.start);
            if micros <= 0 {
                continue;
            }
            let its_own = |fault: &Fault| matches!(fault.harm, Harm::Freeze | Harm::Cut | Harm::Slow) && fault.part != Part::Nats;
            let given_up = one.given_up.unwrap_or(later.start);
            if !reasons(evidence, one, given_up).any(|fault| its_own(fault) && later.start <= fault.to + AFTERMATH) {
                let what = format!(
                    "attempts {} and {} ran at once for {} ms, and nothing had kept worker {} from knowing",
                    earlier.attempt,
                    later.attempt,
                    micros / 1000,
                    one.worker
                );
                verdict.add(2, Kind::Overlap, Some(job), what);
            }
            verdict.overlaps.push(Overlap {
                job,
                earlier: earlier.attempt,
                later: later.attempt,
                micros,
            });
        }
    }
}

/// Promise 3, the other way round: whoever is given up was hit by something.
fn losses(evidence: &Evidence, verdict: &mut Verdict) {
    for (at, worker) in &evidence.ledger.losses {
        let mine = |fault: &&Fault| fault.part.worker().is_some_and(|name| name == worker.as_str());
        let known = |fault: &Fault| fault.from <= *at && *at <= until(evidence, fault.to);
        if !evidence.faults.iter().filter(mine).any(known) {
            verdict.add(
                3,
                Kind::HealthyLost,
                None,
                format!("worker {worker} was given up, and nothing had been done to it"),
            );
        }
    }
}

/// Until when a fault that was mended then may still be noticed: what hides it (a broker or a watcher that is away) adds to it.
fn until(evidence: &Evidence, mended: Micros) -> Micros {
    let mut until = mended + AFTERMATH;
    let mut hiding = evidence
        .faults
        .iter()
        .filter(|fault| matches!(fault.part, Part::Nats | Part::Watcher(_)) && fault.to > mended)
        .collect::<Vec<_>>();
    hiding.sort_by_key(|fault| fault.from);
    for fault in hiding {
        if fault.from <= until {
            until = until.max(fault.to + AFTERMATH);
        }
    }
    until
}
