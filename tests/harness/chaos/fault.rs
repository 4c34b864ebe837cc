//! What is done to the grid, and when: decided beforehand from a seed, so that a run can be repeated.

use std::{fmt, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Serialize;

use super::Micros;

/// A process of the grid under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Part {
    /// nats-server.
    Nats,
    /// `PostgreSQL`.
    Postgres,
    /// `rgrid api`.
    Api,
    /// `rgrid projector`.
    Projector,
    /// `rgrid watcher`; two of them run.
    Watcher(u8),
    /// `rgrid runner`, of the worker of this number.
    Runner(u8),
}

impl Part {
    /// Its name, without the number: faults are told by kind of part.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Postgres => "postgres",
            Self::Api => "api",
            Self::Projector => "projector",
            Self::Watcher(_) => "watcher",
            Self::Runner(_) => "runner",
        }
    }

    /// The worker that a runner serves.
    #[must_use]
    pub fn worker(self) -> Option<String> {
        match self {
            Self::Runner(number) => Some(format!("worker-{number}")),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watcher(number) | Self::Runner(number) => write!(f, "{}-{number}", self.kind()),
            _ => f.write_str(self.kind()),
        }
    }
}

/// What is done to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// SIGKILL, and started again later.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// SIGTERM, waited for, and started again later.
    Restart,
    /// The runner's cable is cut, and mended later.
    Cut,
    /// The runner's cable becomes slow, and good again later.
    Slow,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "SIGKILL",
            Self::Freeze => "SIGSTOP/SIGCONT",
            Self::Restart => "restart",
            Self::Cut => "cut cable",
            Self::Slow => "slow link",
        })
    }
}

/// A fault that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What.
    pub harm: Harm,
    /// To whom.
    pub part: Part,
    /// From when.
    pub from: Micros,
    /// Until when: the part ran again, or the cable was whole.
    pub to: Micros,
}

/// A fault that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub harm: Harm,
    /// To whom.
    pub part: Part,
    /// How long after the beginning.
    pub at: Duration,
    /// How long until it is mended.
    pub lasts: Duration,
}

impl Planned {
    fn end(&self) -> Duration {
        self.at + self.lasts
    }
}

/// How many there are of the parts that there are several of.
#[derive(Debug, Clone, Copy)]
pub struct Crew {
    /// Runners.
    pub runners: u8,
    /// Watchers.
    pub watchers: u8,
}

impl Crew {
    /// Every kind of fault, once, each at a part of the seed's choosing.
    fn kinds(self, random: &mut StdRng) -> Vec<(Harm, Part)> {
        let mut kinds = Vec::new();
        for harm in [Harm::Kill, Harm::Freeze, Harm::Restart] {
            let runner = Part::Runner(random.random_range(1..=self.runners));
            let watcher = Part::Watcher(random.random_range(1..=self.watchers));
            for part in [runner, watcher, Part::Api, Part::Projector, Part::Nats, Part::Postgres] {
                kinds.push((harm, part));
            }
        }
        for harm in [Harm::Cut, Harm::Slow] {
            kinds.push((harm, Part::Runner(random.random_range(1..=self.runners))));
        }
        kinds
    }
}

/// How long a fault lasts: long enough to be noticed, now and then short enough not to be.
fn length(harm: Harm, part: Part, random: &mut StdRng) -> Duration {
    let ms = match (harm, part) {
        (Harm::Freeze, Part::Nats) => 10_000,
        (Harm::Freeze | Harm::Cut, Part::Runner(_)) => random.random_range(1_000..12_000),
        (Harm::Kill | Harm::Restart, Part::Nats) => random.random_range(500..4_000),
        _ => random.random_range(500..7_000),
    };
    Duration::from_millis(ms)
}

/// The faults of a run of this length: every kind in turn, in a new random order each round, most of them one after the other and
/// some of them two at a time. No part is hit by two at once.
#[must_use]
pub fn schedule(seed: u64, crew: Crew, length_of_run: Duration) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut planned: Vec<Planned> = Vec::new();
    let mut deck = Vec::new();
    let mut at = Duration::from_secs(3);
    loop {
        if deck.is_empty() {
            deck = crew.kinds(&mut random);
            deck.shuffle(&mut random);
        }
        let Some((harm, part)) = deck.pop() else { return planned };
        let lasts = length(harm, part, &mut random);
        // It waits for what still lasts of the same part.
        let free = planned
            .iter()
            .filter(|other| other.part == part)
            .map(Planned::end)
            .max()
            .unwrap_or_default();
        let begins = at.max(free + Duration::from_secs(2));
        if begins + lasts > length_of_run {
            return planned;
        }
        planned.push(Planned {
            harm,
            part,
            at: begins,
            lasts,
        });
        let together = random.random_bool(0.2);
        let pause = Duration::from_millis(random.random_range(1_500..5_000));
        at = if together { begins + lasts / 2 } else { begins + lasts + pause };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const CREW: Crew = Crew { runners: 4, watchers: 2 };

    #[test]
    fn a_seed_is_a_schedule() {
        let length = Duration::from_secs(600);
        assert_eq!(schedule(7, CREW, length), schedule(7, CREW, length));
        assert_ne!(schedule(7, CREW, length), schedule(8, CREW, length));
    }

    #[test]
    fn ten_minutes_hold_every_kind_of_fault_twice() {
        for seed in 0..20 {
            let mut times: BTreeMap<(Harm, &str), u32> = BTreeMap::new();
            let planned = schedule(seed, CREW, Duration::from_secs(600));
            for fault in &planned {
                *times.entry((fault.harm, fault.part.kind())).or_default() += 1;
            }
            assert_eq!(times.len(), 20, "{times:?}");
            assert!(times.values().all(|times| *times >= 2), "seed {seed}: {times:?}");
            for (index, fault) in planned.iter().enumerate() {
                let same = planned[..index].iter().filter(|other| other.part == fault.part);
                assert!(same.into_iter().all(|other| other.end() < fault.at), "{planned:?}");
            }
        }
    }
}
