//! The marks under any interleaving of those who ask, put, name and forget contents with passes that stand still, crash and overlap.

use std::collections::{HashMap, HashSet};

use bus::ids::PassId;
use proptest::prelude::*;

use super::*;

/// Seconds.
const GRACE: i64 = 20;
const LIFE_S: i64 = 300;

#[derive(Debug, Clone)]
enum Step {
    Wait(i64),
    /// Somebody asks, with a view of the marks that is so many seconds old.
    Ask(usize, i64),
    BeginPut(usize),
    EndPut(usize),
    /// Somebody who was told that it is there names it in the log.
    Name(usize),
    /// What named it needs it no longer.
    Forget(usize),
    BeginPass,
    /// A pass takes its next step.
    Pass(usize),
}

#[derive(Debug)]
struct Pass {
    id: PassId,
    started: i64,
    listed: HashSet<Digest>,
    named: HashSet<Digest>,
    taken: (Vec<Digest>, i64),
    step: u8,
}

#[derive(Default)]
struct World {
    now: i64,
    shard: Shard,
    /// The marks as they were.
    before: Vec<(i64, Shard)>,
    store: HashSet<Digest>,
    log: HashSet<Digest>,
    /// Until when a content is promised to be there.
    promised: HashMap<Digest, i64>,
    /// Contents on their way, each with when it was found absent; the same may come from several.
    putting: Vec<(Digest, i64)>,
    passes: Vec<Pass>,
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_000_000 + seconds, 0).expect("a time")
}

fn content(n: usize) -> Digest {
    Digest::of(&[u8::try_from(n).unwrap_or(0)])
}

impl World {
    fn amend<T>(&mut self, change: impl FnOnce(&mut Shard) -> T) -> T {
        self.before.push((self.now, self.shard.clone()));
        let outcome = change(&mut self.shard);
        // What is stored is read back with its time.
        let json = serde_json::to_vec(&self.shard).expect("JSON");
        self.shard = serde_json::from_slice::<Shard>(&json).expect("a shard").stored_at(time(self.now));
        outcome
    }

    /// As [`Marks::hold`] does it: says whether it is on its way out.
    fn hold(&mut self, digest: Digest, age: i64) -> bool {
        let then = self.now - age;
        // The view of that moment is what stood before the first change after it.
        let view = self.before.iter().find(|(changed, _)| *changed > then).map(|(_, shard)| shard);
        if !view.unwrap_or(&self.shard).contains(&digest) {
            return false;
        }
        !self.amend(|shard| shard.renew([&digest])).is_empty()
    }

    fn ask(&mut self, digest: Digest, age: i64) -> bool {
        let there = !self.hold(digest, age) && self.store.contains(&digest);
        if there {
            self.promised.insert(digest, self.now + GRACE);
        }
        there
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait(seconds) => self.now += seconds,
            Step::Ask(n, age) => drop(self.ask(content(n), age)),
            Step::BeginPut(n) => {
                let digest = content(n);
                if !self.hold(digest, 0) && !self.store.contains(&digest) {
                    self.putting.push((digest, self.now));
                }
            }
            Step::EndPut(n) => {
                let digest = content(n);
                // The one that began last ends first, so that others are long on their way.
                if let Some(place) = self.putting.iter().rposition(|(putting, _)| *putting == digest) {
                    let (_, since) = self.putting.remove(place);
                    self.store.insert(digest);
                    if self.now - since < LOOKUP_VALID.as_secs().cast_signed() {
                        self.promised.insert(digest, self.now + GRACE);
                    } else {
                        self.ask(digest, 0);
                    }
                }
            }
            Step::Name(n) => {
                if self.promised.get(&content(n)).is_some_and(|until| self.now <= *until) {
                    self.log.insert(content(n));
                }
            }
            Step::Forget(n) => drop(self.log.remove(&content(n))),
            Step::BeginPass => self.passes.push(Pass {
                id: PassId::new(),
                started: self.now,
                listed: HashSet::new(),
                named: HashSet::new(),
                taken: (Vec::new(), 0),
                step: 0,
            }),
            Step::Pass(n) if !self.passes.is_empty() => {
                let n = n % self.passes.len();
                let mut pass = self.passes.swap_remove(n);
                if self.pass(&mut pass) {
                    self.passes.push(pass);
                }
            }
            Step::Pass(_) => {}
        }
    }

    fn pass(&mut self, pass: &mut Pass) -> bool {
        match pass.step {
            0 => pass.listed = self.store.clone(),
            1 => pass.named = self.log.clone(),
            2 => {
                let unused = pass.listed.difference(&pass.named).copied().collect();
                let due = due(time(pass.started), None, Duration::from_secs(GRACE.cast_unsigned()));
                let (id, abandoned) = (pass.id, time(self.now - LIFE_S));
                let taken = self.amend(|shard| {
                    shard.align(&unused);
                    shard.take(id, due, abandoned, 2)
                });
                pass.taken = (taken, self.now);
            }
            3 if self.now - pass.taken.1 < REMOVING.as_secs().cast_signed() => {
                for digest in &pass.taken.0 {
                    self.store.remove(digest);
                }
            }
            // It stood still for too long, and leaves them to another.
            3 => return false,
            _ => {
                let (id, taken) = (pass.id, pass.taken.0.clone());
                self.amend(|shard| shard.deleted(id, &taken));
                return false;
            }
        }
        pass.step += 1;
        true
    }

    fn check(&self) {
        for digest in &self.log {
            assert!(self.store.contains(digest), "{digest} is named in the log, and gone");
        }
        for (digest, until) in &self.promised {
            assert!(
                *until < self.now || self.store.contains(digest),
                "{digest} was promised until {until}, and is gone"
            );
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0..3_usize;
    prop_oneof![
        3 => (0..30_i64).prop_map(Step::Wait),
        1 => (50..400_i64).prop_map(Step::Wait),
        4 => (one.clone(), 0..=1_i64).prop_map(|(n, age)| Step::Ask(n, age)),
        3 => one.clone().prop_map(Step::BeginPut),
        3 => one.clone().prop_map(Step::EndPut),
        4 => one.clone().prop_map(Step::Name),
        3 => one.prop_map(Step::Forget),
        2 => Just(Step::BeginPass),
        12 => (0..3_usize).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_goes_that_is_named_or_promised(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
            world.check();
        }
    }
}

#[test]
fn what_nobody_needs_goes_after_its_grace_and_can_be_put_again() {
    let mut world = World::default();
    let pass = |world: &mut World| {
        world.take(&Step::BeginPass);
        (0..5).for_each(|_| world.take(&Step::Pass(0)));
    };
    world.take(&Step::BeginPut(0));
    world.take(&Step::EndPut(0));
    pass(&mut world);
    assert!(world.shard.contains(&content(0)) && world.store.contains(&content(0)));
    world.take(&Step::Wait(GRACE));
    pass(&mut world);
    assert!(world.store.contains(&content(0)), "its grace and the margin are not over");
    world.take(&Step::Wait(MARGIN.as_secs().cast_signed()));
    pass(&mut world);
    assert!(!world.store.contains(&content(0)) && world.shard.is_empty());
    assert!(!world.ask(content(0), 0));
    world.take(&Step::BeginPut(0));
    world.take(&Step::EndPut(0));
    assert!(world.ask(content(0), 0));
}

#[test]
fn a_put_that_took_long_sees_that_the_same_content_came_and_goes_meanwhile() {
    let mut world = World::default();
    world.take(&Step::BeginPut(0));
    world.take(&Step::BeginPut(0));
    world.take(&Step::EndPut(0));
    for wait in [0, GRACE + 10] {
        world.passes.clear();
        world.take(&Step::Wait(wait));
        world.take(&Step::BeginPass);
        (0..3).for_each(|_| world.take(&Step::Pass(0)));
    }
    world.take(&Step::EndPut(0));
    world.take(&Step::Pass(0));
    world.check();
    assert!(!world.store.contains(&content(0)), "it was put while it was being removed");
}

#[test]
fn what_a_dead_pass_left_on_its_way_out_is_taken_by_another() {
    let mut world = World::default();
    world.store.insert(content(1));
    for wait in [0, GRACE + 10] {
        world.take(&Step::Wait(wait));
        world.take(&Step::BeginPass);
        (0..3).for_each(|_| world.take(&Step::Pass(0)));
        world.passes.clear();
    }
    assert!(world.hold(content(1), 0), "it is on its way out");
    world.take(&Step::Wait(LIFE_S + 1));
    world.take(&Step::BeginPass);
    (0..5).for_each(|_| world.take(&Step::Pass(0)));
    assert!(!world.store.contains(&content(1)) && !world.hold(content(1), 0));
}

#[test]
fn an_attempt_that_runs_keeps_what_was_not_marked_before_it_was_claimed() {
    let grace = Duration::from_secs(60);
    let margin = TimeDelta::from_std(MARGIN).expect("a span");
    assert_eq!(due(time(1000), None, grace), time(940) - margin);
    assert_eq!(due(time(1000), Some(time(500)), grace), time(440) - margin);
    assert_eq!(due(time(1000), Some(time(2000)), grace), time(940) - margin);
    assert_eq!(due(time(1000), None, Duration::MAX), DateTime::<Utc>::MIN_UTC);
}

#[test]
fn a_shard_takes_no_more_marks_than_fit_a_message() {
    let unused: HashSet<Digest> = (0..2 * shard::MARKS_MAX).map(|n| Digest::of(&n.to_be_bytes())).collect();
    let mut marks = Shard::default();
    marks.align(&unused);
    assert_eq!(marks.len(), shard::MARKS_MAX);
    let marks = marks.stored_at(Utc::now());
    assert!(serde_json::to_vec(&marks).expect("JSON").len() < 1 << 20);
}
