//! Many actors write events of one job at once. Each decides on the state that it read last; some events are not decided at all.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    arbitrary,
    history::{History, Worker, publisher},
};
use crate::{
    envelope::Actor,
    ids::Attempt,
    job::{AttemptEnd, Command, Finished, Job, JobEvent, LossCause, Outcome, Phase, Recorded, decide},
    log::read::{Fact, decode},
    spec::policy::MAX_LOSSES,
    subjects,
};

/// The next step of an actor.
#[derive(Debug, Clone)]
enum Step {
    /// Reads the job.
    Look,
    /// Decides on the state that it read last, and appends after that state's sequence.
    Try(Wish),
    /// Decides on the state that it read last, and appends without an expected sequence: a late event that the log does not reject.
    AppendBlindly(Wish),
    /// Publishes an event without a decision, as any publisher: a broken or malicious one.
    PublishAnything(Box<JobEvent>, Option<Option<Index>>),
    /// Publishes a correct event of the current attempt, as a publisher that may not be its worker.
    Forge(Wish, Option<Index>),
}

#[derive(Debug, Clone, Copy)]
enum Wish {
    Claim,
    Start,
    Finish,
    Return,
    Interrupt,
    GiveUp,
    Cancel,
}

/// Three sessions of two workers, two watchers, and the API.
const ACTORS: usize = 6;

struct World {
    history: History,
    workers: [Worker; 3],
    known: [Option<Job>; ACTORS],
}

impl World {
    fn new() -> Self {
        let history = History::submitted();
        let known = std::array::from_fn(|_| Some(history.job()));
        Self {
            history,
            workers: [Worker::new("a"), Worker::new("a"), Worker::new("b")],
            known,
        }
    }

    fn actor(&self, who: usize) -> Actor {
        match who {
            0..=2 => self.workers[who].actor(),
            3 | 4 => Actor::Watcher,
            _ => Actor::Api,
        }
    }

    /// The actor's command, given the state that it knows. Workers name the last attempt that they know.
    fn command(&self, who: usize, wish: Wish, job: &Job) -> Command {
        let worker = &self.workers[who.min(2)];
        let attempt = job.attempts.last().map_or(1, |attempt| attempt.number.0);
        match (who, wish) {
            (0..=2, Wish::Claim | Wish::Cancel) => worker.claim(ready(job).unwrap_or(attempt)),
            (0..=2, Wish::Start) => worker.start(attempt),
            (0..=2, Wish::Finish) => worker.finish(attempt, Outcome::Succeeded),
            (0..=2, Wish::Return) => worker.give_back(attempt),
            (0..=2, Wish::GiveUp) => worker.finish(attempt, Outcome::Failed { exit_code: 1 }),
            (0..=2, Wish::Interrupt) => worker.interrupt(attempt),
            (3 | 4, Wish::Return | Wish::Interrupt) => Command::Release,
            (3 | 4, _) => Command::GiveUp {
                attempt: Attempt(attempt),
                cause: LossCause::WorkerLost { worker: worker.id.clone() },
            },
            _ => Command::Cancel { reason: None },
        }
    }

    /// An append with an expected sequence: rejected if the log has moved on. Returns the event if it was appended.
    fn attempt(&mut self, who: usize, wish: Wish) -> Option<JobEvent> {
        let known = self.known[who].clone()?;
        let event = decide(Some(&known), self.command(who, wish, &known)).ok()?;
        if known.sequence != self.history.last() {
            return None;
        }
        self.history.push(publisher(&self.actor(who), &event), event.clone());
        Some(event)
    }

    fn step(&mut self, who: usize, step: Step) -> Result<(), TestCaseError> {
        let before = self.history.job();
        match step {
            Step::Look => self.known[who] = Some(before),
            Step::Try(wish) => {
                if let Some(event) = self.attempt(who, wish) {
                    let after = self.history.job();
                    let unchanged = Job {
                        sequence: after.sequence,
                        ..before
                    };
                    prop_assert_ne!(after, unchanged, "what was decided has an effect: {:?}", event);
                }
            }
            Step::AppendBlindly(wish) => {
                let Some(known) = self.known[who].clone() else { return Ok(()) };
                let command = self.command(who, wish, &known);
                let now = decide(Some(&before), command.clone());
                let Ok(event) = decide(Some(&known), command) else { return Ok(()) };
                let ends = |finished: &Finished| {
                    let live = before.live_attempt().map(|live| (live.number, live.session));
                    live == Some((finished.attempt, finished.session))
                };
                let stale = match self.actor(who) {
                    // A worker may report the end of its own attempt, even if its command was to return it.
                    Actor::Worker(_) if matches!(&event, JobEvent::Finished(finished) if ends(finished)) => false,
                    Actor::Worker(_) => now.as_ref() != Ok(&event),
                    Actor::Watcher => now.is_err(),
                    // The event is about the job and not about an attempt, so no number fences it.
                    Actor::Api => false,
                };
                if stale {
                    self.without_effect(publisher(&self.actor(who), &event), event)?;
                }
            }
            Step::PublishAnything(event, publisher) => {
                let publisher = publisher.map(|who| who.map_or(Actor::Api, |who| self.actor(who.index(ACTORS))));
                // No property holds for an event on a subject that only trusted actors may publish to.
                if !matches!(publisher, None | Some(Actor::Api | Actor::Watcher)) {
                    self.without_effect(publisher, *event)?;
                }
            }
            Step::Forge(wish, as_whom) => {
                let Ok(event) = decide(Some(&before), self.command(who, wish, &before)) else {
                    return Ok(());
                };
                let right = publisher(&self.actor(who), &event);
                let forged = as_whom.map(|whom| self.actor(whom.index(ACTORS)));
                let both_may = matches!(
                    (&event, &forged),
                    (
                        JobEvent::CancelRequested(_) | JobEvent::Cancelled(_),
                        Some(Actor::Api | Actor::Watcher)
                    )
                );
                if forged != right && !both_may {
                    self.without_effect(forged, event)?;
                }
            }
        }
        Ok(())
    }

    fn without_effect(&mut self, publisher: Option<Actor>, event: JobEvent) -> Result<(), TestCaseError> {
        let before = self.history.job();
        self.history.push(publisher, event);
        let after = self.history.job();
        let unchanged = Job {
            sequence: after.sequence,
            ..before
        };
        prop_assert_eq!(after, unchanged);
        Ok(())
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        4 => Just(Wish::Claim),
        2 => Just(Wish::Start),
        2 => Just(Wish::Finish),
        1 => Just(Wish::Return),
        1 => Just(Wish::Interrupt),
        1 => Just(Wish::GiveUp),
        1 => Just(Wish::Cancel),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Look),
        12 => wish().prop_map(Step::Try),
        4 => wish().prop_map(Step::AppendBlindly),
        1 => (arbitrary::event(), any::<Option<Option<Index>>>()).prop_map(|(event, who)| Step::PublishAnything(Box::new(event), who)),
        2 => (wish(), any::<Option<Index>>()).prop_map(|(wish, whom)| Step::Forge(wish, whom)),
    ]
}

/// Watchers and the API act seldom. Otherwise no job would get far.
fn who() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0..3_usize, 6 => 3..5_usize, 1 => Just(5_usize)]
}

fn check(history: &History) -> Result<(), TestCaseError> {
    let mut before: Option<Job> = None;
    for recorded in &history.events {
        let now = Job::evolve(before.clone(), recorded);
        let job = now.as_ref().expect("it was submitted");
        prop_assert_eq!(job.sequence, recorded.sequence);
        let committed = job
            .attempts
            .iter()
            .filter(|attempt| matches!(attempt.end, Some(AttemptEnd::Finished(_))));
        prop_assert!(committed.count() <= 1, "two attempts committed");
        let live = job.attempts.iter().filter(|attempt| attempt.end.is_none()).count();
        prop_assert_eq!(live, usize::from(job.live_attempt().is_some()), "an attempt is live or has an end");
        let numbers = job.attempts.iter().map(|attempt| attempt.number.0).collect::<Vec<_>>();
        prop_assert_eq!(&numbers, &(1..=u32::try_from(numbers.len()).expect("few")).collect::<Vec<_>>());
        let lost = job
            .attempts
            .iter()
            .filter(|attempt| matches!(attempt.end, Some(AttemptEnd::Lost(_))))
            .count();
        prop_assert!(lost <= MAX_LOSSES as usize, "an attempt that was given back counts against nothing");
        prop_assert_eq!(job.ended_at.is_some(), job.state().is_end());
        if let Some(before) = before.filter(|before| before.state().is_end()) {
            let unchanged = Job {
                sequence: job.sequence,
                ..before
            };
            prop_assert_eq!(job, &unchanged, "an end is an end");
        }
        before = now;
    }
    Ok(())
}

/// Stored and read again, a prefix of the history gives the same job. A worker that only reads the prefix's ready event makes the same
/// decisions.
fn check_prefix(history: &History, end: usize) -> Result<(), TestCaseError> {
    let prefix = &history.events[..=end];
    let mut read = Vec::new();
    for recorded in prefix {
        let subject = match &recorded.publisher {
            Some(actor) => subjects::job_by(&recorded.namespace, recorded.job, actor),
            None => subjects::job_ready(
                &recorded.namespace,
                recorded.job,
                &super::history::spec().queue,
                super::history::spec().class(),
            ),
        };
        match decode(&subject, recorded.sequence, &recorded.envelope.to_json()) {
            Ok(Some(Fact::Job(recorded))) => read.push(*recorded),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
    prop_assert_eq!(Job::replay(&read), Job::replay(prefix));
    let (job, last) = (Job::replay(prefix).expect("submitted"), &prefix[end]);
    if let (Some(met), Phase::Queued { .. }, None) = (Job::from_ready(last), &job.phase, &last.publisher) {
        let before = Job::replay(&prefix[..end]);
        let is_late = before.is_some_and(|before| before.phase == job.phase) && met.phase != job.phase;
        if is_late {
            return check_without_effect(prefix, &met, &job);
        }
        let claim = Worker::new("c").claim(ready(&job).unwrap_or(1));
        prop_assert_eq!((&met.phase, &met.spec, met.sequence), (&job.phase, &job.spec, job.sequence));
        prop_assert_eq!(decide(Some(&met), claim.clone()), decide(Some(&job), claim));
    }
    Ok(())
}

/// The number of the attempt that is ready.
fn ready(job: &Job) -> Option<u32> {
    job.ready_attempt().map(|attempt| attempt.0)
}

/// A late word on a ready subject that nothing stopped (our own programs' are stopped by their expected sequence): it changed nothing,
/// and who believes it claims, and ends, in vain. Who reads the job goes on with the right attempt.
fn check_without_effect(prefix: &[Recorded], met: &Job, job: &Job) -> Result<(), TestCaseError> {
    let mut history = History {
        id: job.id,
        events: prefix.to_vec(),
    };
    let (deceived, honest) = (Worker::new("c"), Worker::new("d"));
    let claimed = decide(Some(met), deceived.claim(ready(met).unwrap_or(1))).expect("it is queued, as far as that one knows");
    history.push(publisher(&deceived.actor(), &claimed), claimed);
    let believed = Job::evolve(Some(met.clone()), history.events.last().expect("its claim"));
    let attempt = believed.as_ref().and_then(Job::live_attempt).map_or(0, |live| live.number.0);
    let finished = decide(believed.as_ref(), deceived.finish(attempt, Outcome::Succeeded)).expect("it runs, as far as that one knows");
    history.push(publisher(&deceived.actor(), &finished), finished);
    let unchanged = Job {
        sequence: history.last(),
        ..job.clone()
    };
    prop_assert_eq!(&history.job(), &unchanged);
    prop_assert!(history.apply(&honest.actor(), honest.claim(ready(job).unwrap_or(1))).is_ok());
    Ok(())
}

/// A case that the interleavings reach once in thousands.
#[test]
fn a_claim_after_a_late_ready_event_has_no_effect() {
    let (mut history, worker) = (History::submitted(), Worker::new("a"));
    let mut late = None;
    for attempt in 1..=2 {
        history.apply(&worker.actor(), worker.claim(attempt)).expect("queued");
        let event = decide(Some(&history.job()), worker.give_up(attempt)).expect("live");
        late.get_or_insert(event.clone());
        history.push(None, event);
    }
    history.push(None, late.expect("two were given up"));
    assert_eq!(history.job().phase, Phase::Queued { next: Attempt(3) });
    let end = history.events.len() - 1;
    assert_eq!(
        Job::from_ready(&history.events[end]).map(|met| met.phase),
        Some(Phase::Queued { next: Attempt(2) })
    );
    check_prefix(&history, end).expect("in vain");
}

/// From every state, a live worker can end the job. If all workers die, the watchers alone can end it.
fn check_end(history: &History) -> Result<(), TestCaseError> {
    let worker = Worker::new("last");
    let mut lives = history.clone();
    let mut dies = history.clone();
    for history in [&mut lives, &mut dies] {
        if let Some(live) = history.job().live_attempt().map(|live| live.number.0) {
            prop_assert!(history.apply(&Actor::Watcher, worker.give_up(live)).is_ok());
        }
        if let Phase::Retrying { .. } = history.job().phase {
            prop_assert!(history.apply(&Actor::Watcher, Command::Release).is_ok());
        }
    }
    if let Phase::Queued { next } = lives.job().phase {
        prop_assert!(lives.apply(&worker.actor(), worker.claim(next.0)).is_ok());
        prop_assert!(lives.apply(&worker.actor(), worker.finish(next.0, Outcome::Succeeded)).is_ok());
    }
    while let Phase::Queued { next } = dies.job().phase {
        prop_assert!(dies.job().losses < MAX_LOSSES);
        prop_assert!(dies.apply(&worker.actor(), worker.claim(next.0)).is_ok());
        prop_assert!(dies.apply(&Actor::Watcher, worker.give_up(next.0)).is_ok());
    }
    prop_assert!(lives.state().is_end() && dies.state().is_end());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_the_invariants(steps in vec((who(), step()), 1..80), prefix: Index) {
        let mut world = World::new();
        for (who, step) in steps {
            world.step(who, step)?;
        }
        check(&world.history)?;
        check_prefix(&world.history, prefix.index(world.history.events.len()))?;
        check_end(&world.history)?;
    }
}

/// The interleavings above are only useful if they reach every state.
#[test]
fn the_interleavings_reach_every_end() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut reached = std::collections::BTreeMap::<&str, u32>::new();
    for _ in 0..300 {
        let steps = vec((who(), step()), 80).new_tree(&mut runner).expect("a strategy").current();
        let mut world = World::new();
        for (who, step) in steps {
            world.step(who, step).expect("it holds");
        }
        let job = world.history.job();
        *reached.entry(job.state().as_str()).or_default() += 1;
        *reached.entry("several attempts").or_default() += u32::from(job.attempts.len() > 1);
    }
    for state in ["succeeded", "failed", "cancelled", "dead", "several attempts"] {
        assert!(reached.get(state).is_some_and(|times| *times >= 5), "{reached:?}");
    }
}
