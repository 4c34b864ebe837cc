//! Which planned command is carried out next, and how many at once. Pure.
//!
//! Dead workers come first: the commands that give them up may use all the capacity, and every other kind of command leaves
//! a part of it free. The other kinds share what is left evenly, so that no backlog of one of them holds up another.

use std::collections::{HashMap, VecDeque};

use crate::plan::{Command, Topic};

/// Commands that are carried out at once.
const CAPACITY: usize = 32;
/// Of these, those that only a rescue may use: a history is read and an event is appended in a few milliseconds, so that this
/// few give up some hundred attempts in a second.
const FOR_RESCUES: usize = 8;

/// The kinds of commands that wait for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Sessions that are lost, and the attempts that they held.
    Rescue,
    /// Windows of batches.
    Windows,
    /// Jobs that wait for other jobs.
    Dependencies,
    /// Jobs for which a time has come.
    Timers,
}

impl Lane {
    const ORDINARY: [Self; 3] = [Self::Windows, Self::Dependencies, Self::Timers];

    const fn of(command: &Command) -> Self {
        match command {
            Command::Lose { .. } | Command::GiveUp { .. } => Self::Rescue,
            Command::Advance { .. } | Command::Stop { .. } | Command::End { .. } => Self::Windows,
            Command::Ask { .. } => Self::Dependencies,
            Command::Look { .. } => Self::Timers,
        }
    }
}

/// What is planned, and what is being done.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    planned: [VecDeque<Command>; 4],
    busy: HashMap<Topic, Lane>,
}

impl Lanes {
    /// Takes a new plan in place of what is left of the last one.
    pub(crate) fn plan(&mut self, commands: Vec<Command>) {
        self.planned = Default::default();
        for command in commands {
            self.planned[Lane::of(&command) as usize].push_back(command);
        }
    }

    /// Whether nothing is left of the plan.
    pub(crate) fn is_empty(&self) -> bool {
        self.planned.iter().all(VecDeque::is_empty)
    }

    /// Whether the plan has nothing more for a lane.
    pub(crate) fn is_idle(&self, lane: Lane) -> bool {
        self.planned[lane as usize].is_empty()
    }

    /// The next command that there is capacity for; its topic is busy until it is [`Self::done`]. A command is dropped whose
    /// topic is busy, or rests: the next plan has it again.
    pub(crate) fn next(&mut self, rests: impl Fn(&Topic) -> bool) -> Option<(Topic, Command)> {
        loop {
            let command = self.planned[self.turn()? as usize].pop_front()?;
            let topic = command.topic();
            if !rests(&topic) && !self.busy.contains_key(&topic) {
                self.busy.insert(topic.clone(), Lane::of(&command));
                return Some((topic, command));
            }
        }
    }

    /// The lane whose turn it is: rescues first, then the one with the fewest commands under way.
    fn turn(&self) -> Option<Lane> {
        let under_way = |lane: Lane| self.busy.values().filter(|busy| **busy == lane).count();
        if self.busy.len() >= CAPACITY {
            return None;
        }
        if !self.is_idle(Lane::Rescue) {
            return Some(Lane::Rescue);
        }
        let ordinary = self.busy.len() - under_way(Lane::Rescue);
        let waiting = Lane::ORDINARY.into_iter().filter(|lane| !self.is_idle(*lane));
        (ordinary < CAPACITY - FOR_RESCUES)
            .then(|| waiting.min_by_key(|lane| under_way(*lane)))
            .flatten()
    }

    /// A command was carried out, or failed.
    pub(crate) fn done(&mut self, topic: &Topic) {
        self.busy.remove(topic);
    }
}

#[cfg(test)]
mod tests {
    use bus::{
        ids::{Attempt, BatchId, JobId, SessionId},
        job::LossCause,
    };

    use super::*;

    fn look() -> Command {
        Command::Look {
            job: JobId::new(),
            known: 1,
            met: false,
        }
    }

    fn ask() -> Command {
        Command::Ask {
            job: JobId::new(),
            known: 1,
            of: Vec::new(),
        }
    }

    fn advance() -> Command {
        Command::Advance {
            batch: BatchId::new(),
            after: 1,
            members: vec![0],
        }
    }

    fn give_up() -> Command {
        let worker: bus::ids::WorkerId = "w".parse().expect("a token");
        Command::GiveUp {
            job: JobId::new(),
            attempt: Attempt::FIRST,
            worker: worker.clone(),
            session: SessionId::new(),
            claimed: 1,
            cause: LossCause::WorkerLost { worker },
            because: None,
        }
    }

    fn many(number: usize, one: fn() -> Command) -> Vec<Command> {
        std::iter::repeat_with(one).take(number).collect()
    }

    /// Takes as many as there is capacity for, and counts them by their lanes.
    fn take(lanes: &mut Lanes) -> HashMap<Lane, usize> {
        let mut taken = HashMap::new();
        while let Some((_, command)) = lanes.next(|_| false) {
            *taken.entry(Lane::of(&command)).or_default() += 1;
        }
        taken
    }

    #[test]
    fn no_backlog_takes_the_capacity_of_a_rescue() {
        for one in [look, ask, advance] {
            let mut lanes = Lanes::default();
            lanes.plan(many(50_000, one));
            assert_eq!(take(&mut lanes).values().sum::<usize>(), CAPACITY - FOR_RESCUES);
            lanes.plan([many(100, one), many(100, give_up)].concat());
            assert_eq!(
                take(&mut lanes),
                HashMap::from([(Lane::Rescue, FOR_RESCUES)]),
                "at once, whatever is under way"
            );
        }
    }

    #[test]
    fn a_rescue_comes_first_and_may_take_everything() {
        let mut lanes = Lanes::default();
        lanes.plan([many(50, look), many(50, advance), many(CAPACITY, give_up)].concat());
        assert_eq!(take(&mut lanes), HashMap::from([(Lane::Rescue, CAPACITY)]));
    }

    #[test]
    fn no_backlog_holds_up_another_kind() {
        let mut lanes = Lanes::default();
        lanes.plan([many(5_000, look), many(5_000, ask), many(5_000, advance)].concat());
        let each = (CAPACITY - FOR_RESCUES) / Lane::ORDINARY.len();
        assert_eq!(take(&mut lanes), Lane::ORDINARY.map(|lane| (lane, each)).into());
        // Also where one of them has all of it: what is free next is for the others.
        let mut lanes = Lanes::default();
        lanes.plan(many(5_000, look));
        let first = lanes.next(|_| false).expect("there is room").0;
        take(&mut lanes);
        lanes.plan([many(5_000, look), many(1, ask)].concat());
        lanes.done(&first);
        assert_eq!(take(&mut lanes), HashMap::from([(Lane::Dependencies, 1)]));
    }

    #[test]
    fn one_command_is_done_at_a_time_about_a_topic_and_none_while_it_rests() {
        let mut lanes = Lanes::default();
        let one = look();
        lanes.plan(vec![one.clone(), one.clone()]);
        let (topic, _) = lanes.next(|_| false).expect("there is room");
        assert_eq!(lanes.next(|_| false), None, "it is busy");
        lanes.done(&topic);
        lanes.plan(vec![one]);
        assert_eq!(lanes.next(|resting| *resting == topic), None, "it rests");
        assert!(lanes.is_empty());
    }
}
