//! Which planned command is carried out next, and how many at once. Pure.
//!
//! Commands about lost sessions come first and may use all the capacity; every other kind leaves a part of it free. The other kinds
//! share the rest evenly, so that a backlog of one kind does not delay another.

use std::collections::{HashMap, VecDeque};

use crate::plan::{Command, Topic};

/// Commands that are carried out at once.
const CAPACITY: usize = 32;
/// Of these, those that only [`Kind::Rescue`] may use. A history is read and an event is appended in a few milliseconds, so that
/// these few give up some hundred attempts in a second.
const FOR_RESCUES: usize = 8;

/// The kinds of commands that share the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Sessions that are lost, and the attempts that they held.
    Rescue,
    /// Windows of batches.
    Windows,
    /// Jobs that wait for other jobs.
    Dependencies,
    /// Jobs whose timer is due.
    Timers,
}

impl Kind {
    const ORDINARY: [Self; 3] = [Self::Windows, Self::Dependencies, Self::Timers];

    const fn of(command: &Command) -> Self {
        match command {
            Command::DeclareLost { .. } | Command::GiveUp { .. } => Self::Rescue,
            Command::AdvanceWindow { .. } | Command::StopBatch { .. } | Command::EndMember { .. } => Self::Windows,
            Command::CheckDependencies { .. } => Self::Dependencies,
            Command::CheckJob { .. } => Self::Timers,
        }
    }
}

/// The commands of the last plan that are left, and the topics of those under way.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    planned: [VecDeque<Command>; 4],
    busy: HashMap<Topic, Kind>,
}

impl Schedule {
    /// Replaces what is left of the last plan.
    pub(crate) fn plan(&mut self, commands: Vec<Command>) {
        self.planned = Default::default();
        for command in commands {
            self.planned[Kind::of(&command) as usize].push_back(command);
        }
    }

    /// Whether nothing is left of the plan.
    pub(crate) fn is_empty(&self) -> bool {
        self.planned.iter().all(VecDeque::is_empty)
    }

    /// Whether no command of this kind is left of the plan.
    pub(crate) fn is_idle(&self, kind: Kind) -> bool {
        self.planned[kind as usize].is_empty()
    }

    /// The next command, if there is capacity; its topic is busy until it is [`Self::done`]. A command whose topic is busy, or
    /// backs off after a failure, is dropped: the next plan contains it again.
    pub(crate) fn next(&mut self, backs_off: impl Fn(&Topic) -> bool) -> Option<(Topic, Command)> {
        loop {
            let command = self.planned[self.next_kind()? as usize].pop_front()?;
            let topic = command.topic();
            if !backs_off(&topic) && !self.busy.contains_key(&topic) {
                self.busy.insert(topic.clone(), Kind::of(&command));
                return Some((topic, command));
            }
        }
    }

    /// The kind of the next command: rescues first, then the kind with the fewest commands under way.
    fn next_kind(&self) -> Option<Kind> {
        let under_way = |kind: Kind| self.busy.values().filter(|busy| **busy == kind).count();
        if self.busy.len() >= CAPACITY {
            return None;
        }
        if !self.is_idle(Kind::Rescue) {
            return Some(Kind::Rescue);
        }
        let ordinary = self.busy.len() - under_way(Kind::Rescue);
        let waiting = Kind::ORDINARY.into_iter().filter(|kind| !self.is_idle(*kind));
        (ordinary < CAPACITY - FOR_RESCUES)
            .then(|| waiting.min_by_key(|kind| under_way(*kind)))
            .flatten()
    }

    /// A command about this topic was carried out, or failed.
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
        Command::CheckJob {
            job: JobId::new(),
            known: 1,
            met: false,
        }
    }

    fn ask() -> Command {
        Command::CheckDependencies {
            job: JobId::new(),
            known: 1,
            of: Vec::new(),
        }
    }

    fn advance() -> Command {
        Command::AdvanceWindow {
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
            session_end: None,
        }
    }

    fn many(number: usize, one: fn() -> Command) -> Vec<Command> {
        std::iter::repeat_with(one).take(number).collect()
    }

    /// Takes as many commands as there is capacity for, and counts them by kind.
    fn take(schedule: &mut Schedule) -> HashMap<Kind, usize> {
        let mut taken = HashMap::new();
        while let Some((_, command)) = schedule.next(|_| false) {
            *taken.entry(Kind::of(&command)).or_default() += 1;
        }
        taken
    }

    #[test]
    fn a_backlog_leaves_capacity_for_rescues() {
        for one in [look, ask, advance] {
            let mut schedule = Schedule::default();
            schedule.plan(many(50_000, one));
            assert_eq!(take(&mut schedule).values().sum::<usize>(), CAPACITY - FOR_RESCUES);
            schedule.plan([many(100, one), many(100, give_up)].concat());
            assert_eq!(
                take(&mut schedule),
                HashMap::from([(Kind::Rescue, FOR_RESCUES)]),
                "at once, whatever else is under way"
            );
        }
    }

    #[test]
    fn a_rescue_comes_first_and_may_take_everything() {
        let mut schedule = Schedule::default();
        schedule.plan([many(50, look), many(50, advance), many(CAPACITY, give_up)].concat());
        assert_eq!(take(&mut schedule), HashMap::from([(Kind::Rescue, CAPACITY)]));
    }

    #[test]
    fn a_backlog_of_one_kind_does_not_delay_another() {
        let mut schedule = Schedule::default();
        schedule.plan([many(5_000, look), many(5_000, ask), many(5_000, advance)].concat());
        let each = (CAPACITY - FOR_RESCUES) / Kind::ORDINARY.len();
        assert_eq!(take(&mut schedule), Kind::ORDINARY.map(|kind| (kind, each)).into());
        // Also where one of them has all of it: what is free next is for the others.
        let mut schedule = Schedule::default();
        schedule.plan(many(5_000, look));
        let first = schedule.next(|_| false).expect("there is room").0;
        take(&mut schedule);
        schedule.plan([many(5_000, look), many(1, ask)].concat());
        schedule.done(&first);
        assert_eq!(take(&mut schedule), HashMap::from([(Kind::Dependencies, 1)]));
    }

    #[test]
    fn a_topic_has_one_command_at_a_time_and_none_while_it_backs_off() {
        let mut schedule = Schedule::default();
        let one = look();
        schedule.plan(vec![one.clone(), one.clone()]);
        let (topic, _) = schedule.next(|_| false).expect("there is room");
        assert_eq!(schedule.next(|_| false), None, "it is busy");
        schedule.done(&topic);
        schedule.plan(vec![one]);
        assert_eq!(schedule.next(|backing_off| *backing_off == topic), None, "it backs off");
        assert!(schedule.is_empty());
    }
}
