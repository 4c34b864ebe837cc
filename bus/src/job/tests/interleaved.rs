//! Many speak of one job at once, each on what it last knew, and some without asking.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    arbitrary,
    history::{History, Worker, speaker},
};
use crate::{
    envelope::Actor,
    ids::Attempt,
    job::{AttemptEnd, Command, Finished, Job, JobEvent, LossCause, Outcome, Phase, Recorded, decide},
    log::read::{Fact, decode},
    spec::policy::MAX_LOSSES,
    subjects,
};

/// What one of them does next.
#[derive(Debug, Clone)]
enum Step {
    /// Reads the job.
    Look,
    /// Decides on what it last read, and appends behind that.
    Try(Wish),
    /// Decides on what it last read, and appends without a look at what came since: a late word that nothing stops.
    Blurt(Wish),
    /// Says something that nobody decided on, with any speaker: a broken or a wicked one.
    Rave(Box<JobEvent>, Option<Option<Index>>),
    /// Says what is true of the live attempt, under a name that may not be its own.
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
const WHO: usize = 6;

struct World {
    history: History,
    workers: [Worker; 3],
    known: [Option<Job>; WHO],
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

    /// What somebody wants, given what it knows: workers speak of the last attempt that they know of.
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

    /// Optimistic: refused where the log moved on since it was read. Returns the event, if it was appended.
    fn attempt(&mut self, who: usize, wish: Wish) -> Option<JobEvent> {
        let known = self.known[who].clone()?;
        let event = decide(Some(&known), self.command(who, wish, &known)).ok()?;
        if known.sequence != self.history.last() {
            return None;
        }
        self.history.push(speaker(&self.actor(who), &event), event.clone());
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
            Step::Blurt(wish) => {
                let Some(known) = self.known[who].clone() else { return Ok(()) };
                let command = self.command(who, wish, &known);
                let now = decide(Some(&before), command.clone());
                let Ok(event) = decide(Some(&known), command) else { return Ok(()) };
                let ends = |finished: &Finished| {
                    let live = before.live_attempt().map(|live| (live.number, live.session));
                    live == Some((finished.attempt, finished.session))
                };
                let stale = match self.actor(who) {
                    // The end of its own attempt is a worker's to say, also where it came to that by wanting to give it back.
                    Actor::Worker(_) if matches!(&event, JobEvent::Finished(finished) if ends(finished)) => false,
                    Actor::Worker(_) => now.as_ref() != Ok(&event),
                    Actor::Watcher => now.is_err(),
                    // What it says is about the job, not about an attempt; no number fences it.
                    Actor::Api => false,
                };
                if stale {
                    self.without_effect(speaker(&self.actor(who), &event), event)?;
                }
            }
            Step::Rave(event, speaker) => {
                let speaker = speaker.map(|who| who.map_or(Actor::Api, |who| self.actor(who.index(WHO))));
                // Whom the log trusts with a subject of its own, no property binds.
                if !matches!(speaker, None | Some(Actor::Api | Actor::Watcher)) {
                    self.without_effect(speaker, *event)?;
                }
            }
            Step::Forge(wish, as_whom) => {
                let Ok(event) = decide(Some(&before), self.command(who, wish, &before)) else {
                    return Ok(());
                };
                let right = speaker(&self.actor(who), &event);
                let forged = as_whom.map(|whom| self.actor(whom.index(WHO)));
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

    fn without_effect(&mut self, speaker: Option<Actor>, event: JobEvent) -> Result<(), TestCaseError> {
        let before = self.history.job();
        self.history.push(speaker, event);
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
        4 => wish().prop_map(Step::Blurt),
        1 => (arbitrary::event(), any::<Option<Option<Index>>>()).prop_map(|(event, who)| Step::Rave(Box::new(event), who)),
        2 => (wish(), any::<Option<Index>>()).prop_map(|(wish, whom)| Step::Forge(wish, whom)),
    ]
}

/// Watchers and the API speak seldom, or no job would get anywhere.
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

/// Through the stored bytes and back, a prefix tells the same job; and a worker that meets it at its ready event alone
/// comes to the same decisions.
fn check_prefix(history: &History, end: usize) -> Result<(), TestCaseError> {
    let prefix = &history.events[..=end];
    let mut read = Vec::new();
    for recorded in prefix {
        let subject = match &recorded.speaker {
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
    if let (Some(met), Phase::Queued { .. }, None) = (Job::from_ready(last), &job.phase, &last.speaker) {
        let before = Job::replay(&prefix[..end]);
        let is_late = before.is_some_and(|before| before.phase == job.phase) && met.phase != job.phase;
        if is_late {
            return in_vain(prefix, &met, &job);
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
fn in_vain(prefix: &[Recorded], met: &Job, job: &Job) -> Result<(), TestCaseError> {
    let mut history = History {
        id: job.id,
        events: prefix.to_vec(),
    };
    let (deceived, honest) = (Worker::new("c"), Worker::new("d"));
    let claimed = decide(Some(met), deceived.claim(ready(met).unwrap_or(1))).expect("it is queued, as far as that one knows");
    history.push(speaker(&deceived.actor(), &claimed), claimed);
    let believed = Job::evolve(Some(met.clone()), history.events.last().expect("its claim"));
    let attempt = believed.as_ref().and_then(Job::live_attempt).map_or(0, |live| live.number.0);
    let finished = decide(believed.as_ref(), deceived.finish(attempt, Outcome::Succeeded)).expect("it runs, as far as that one knows");
    history.push(speaker(&deceived.actor(), &finished), finished);
    let unchanged = Job {
        sequence: history.last(),
        ..job.clone()
    };
    prop_assert_eq!(&history.job(), &unchanged);
    prop_assert!(history.say(&honest.actor(), honest.claim(ready(job).unwrap_or(1))).is_ok());
    Ok(())
}

/// The case that the interleavings met once in thousands.
#[test]
fn who_believes_a_late_word_on_a_ready_subject_claims_in_vain() {
    let (mut history, worker) = (History::submitted(), Worker::new("a"));
    let mut late = None;
    for attempt in 1..=2 {
        history.say(&worker.actor(), worker.claim(attempt)).expect("queued");
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

/// From wherever it stands, a worker that lives ends it; and so do watchers alone, if every worker dies.
fn check_end(history: &History) -> Result<(), TestCaseError> {
    let worker = Worker::new("last");
    let mut lives = history.clone();
    let mut dies = history.clone();
    for history in [&mut lives, &mut dies] {
        if let Some(live) = history.job().live_attempt().map(|live| live.number.0) {
            prop_assert!(history.say(&Actor::Watcher, worker.give_up(live)).is_ok());
        }
        if let Phase::Retrying { .. } = history.job().phase {
            prop_assert!(history.say(&Actor::Watcher, Command::Release).is_ok());
        }
    }
    if let Phase::Queued { next } = lives.job().phase {
        prop_assert!(lives.say(&worker.actor(), worker.claim(next.0)).is_ok());
        prop_assert!(lives.say(&worker.actor(), worker.finish(next.0, Outcome::Succeeded)).is_ok());
    }
    while let Phase::Queued { next } = dies.job().phase {
        prop_assert!(dies.job().losses < MAX_LOSSES);
        prop_assert!(dies.say(&worker.actor(), worker.claim(next.0)).is_ok());
        prop_assert!(dies.say(&Actor::Watcher, worker.give_up(next.0)).is_ok());
    }
    prop_assert!(lives.state().is_end() && dies.state().is_end());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whoever_speaks_when(steps in vec((who(), step()), 1..80), prefix: Index) {
        let mut world = World::new();
        for (who, step) in steps {
            world.step(who, step)?;
        }
        check(&world.history)?;
        check_prefix(&world.history, prefix.index(world.history.events.len()))?;
        check_end(&world.history)?;
    }
}

/// The interleavings above are worth something only if they get somewhere.
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
