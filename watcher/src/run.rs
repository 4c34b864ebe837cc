//! The loop around the plan.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use bus::{
    ids::{Queue, SessionId},
    stream::{append::Log, connect::Bus},
};
use futures::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    act::{Done, Hands, Topic},
    canary::{self, Canary},
    config::Config,
    connect::{self, Error},
    feed::{self, Feed},
    plan::{Command, plan},
    state::State,
    watchdog,
};

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(250);
/// For how long an append is tried that nobody acknowledges.
const PATIENCE: Duration = Duration::from_secs(10);
/// Commands that are carried out at once.
const HANDS: usize = 32;
/// Events that may stand behind the last one folded while the log counts as read up to now.
const CAUGHT_UP: u64 = 1_000;
/// How long a topic rests after a failure: the first time, and at most.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long what is being said may take at a stop.
const GRACE: Duration = Duration::from_secs(3);

/// Watches until it is stopped. Waits out every outage of the broker.
///
/// # Errors
/// Only where an operator must change something; see [`Error`].
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let Some(bus) = connect::connect(&config.nats, "watcher", config.replicas, &stop).await? else {
        return Ok(());
    };
    info!("watching; a worker that is silent for {:.1} s is lost", config.lapse.as_secs_f32());
    let (feed, feeds) = mpsc::channel(4);
    let (stored, canaries) = mpsc::channel(16);
    let (queues, looked_after) = watch::channel(BTreeSet::<Queue>::new());
    let mut services = JoinSet::new();
    services.spawn(feed::events(bus.clone(), feed.clone()));
    services.spawn(feed::beats(bus.clone(), feed));
    services.spawn(canary::beat(bus.clone(), SessionId::new(), stored));
    services.spawn(watchdog::look(bus.clone(), looked_after));
    let mut watcher = Watcher::new(&bus, config.lapse);
    tokio::select! {
        () = watcher.watch(feeds, canaries, &queues, &stop) => {}
        // None of them ends by itself. Deaf on one ear, the watcher would be worse than none: whoever started it starts another.
        Some(Err(ended)) = services.join_next() => if let Ok(panic) = ended.try_into_panic() { std::panic::resume_unwind(panic) },
    }
    services.shutdown().await;
    watcher.finish().await;
    info!("stopped watching");
    Ok(())
}

struct Watcher {
    state: State,
    lapse: Duration,
    bus: Bus,
    canary: Canary,
    /// How often the connection was made; another one may have missed what happened before it.
    connects: u64,
    caught_up: bool,
    planned: VecDeque<Command>,
    planned_at: Instant,
    doing: JoinSet<(Topic, Done)>,
    busy: HashSet<Topic>,
    /// What failed, until when it rests, and how long that is.
    resting: HashMap<Topic, (Instant, Duration)>,
}

impl Watcher {
    fn new(bus: &Bus, lapse: Duration) -> Self {
        Self {
            state: State::new(Instant::now()),
            lapse,
            bus: bus.clone(),
            canary: Canary::default(),
            connects: 0,
            caught_up: false,
            planned: VecDeque::new(),
            planned_at: Instant::now(),
            doing: JoinSet::new(),
            busy: HashSet::new(),
            resting: HashMap::new(),
        }
    }

    async fn watch(
        &mut self,
        mut feeds: mpsc::Receiver<Feed>,
        mut canaries: mpsc::Receiver<canary::Stored>,
        queues: &watch::Sender<BTreeSet<Queue>>,
        stop: &CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut look = false;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(feed) = feeds.recv() => look = self.take_in(feed, queues),
                Some(stored) = canaries.recv() => self.canary.acknowledged(stored),
                Some(done) = self.doing.join_next() => look = self.settle(done),
                _ = ticks.tick() => look = true,
            }
            if let Some(sent) = self.canary.last() {
                self.state.hear_self(sent);
            }
            if look {
                self.look(Instant::now());
            }
        }
    }

    /// Folds what came, and says whether something may follow from it at once.
    fn take_in(&mut self, feed: Feed, queues: &watch::Sender<BTreeSet<Queue>>) -> bool {
        let now = Instant::now();
        match feed {
            Feed::Events(events, pending) => {
                let of_workers = events.iter().any(|(_, seen)| seen.is_of_worker());
                for (sequence, seen) in events {
                    self.state.see(sequence, &seen, now);
                }
                self.caught_up |= pending <= CAUGHT_UP;
                if of_workers {
                    let served = self.state.queues();
                    queues.send_if_modified(|queues| {
                        let changed = *queues != served;
                        *queues = served;
                        changed
                    });
                }
                of_workers
            }
            Feed::Beats(beats, last) => {
                for (worker, beat) in beats {
                    self.state.hear(&worker, &beat, now);
                }
                self.canary.told(last);
                false
            }
        }
    }

    /// Takes note of what came of a command, and says whether more is to be done.
    fn settle(&mut self, done: Result<(Topic, Done), tokio::task::JoinError>) -> bool {
        let Ok((topic, done)) = done else { return true };
        let now = Instant::now();
        self.busy.remove(&topic);
        match (done, &topic) {
            (Done::Failed, _) => {
                let pause = self.resting.get(&topic).map_or(REST.0, |(_, pause)| (*pause * 2).min(REST.1));
                self.resting.insert(topic, (now + pause, pause));
                return !self.planned.is_empty();
            }
            (Done::Lost(sequence, seen), _) => self.state.see(sequence, &seen, now),
            (Done::Released, Topic::Attempt(job, attempt, key)) => self.state.release(*job, *attempt, key),
            (Done::Released, Topic::Session(_)) | (Done::Overtaken, _) => {}
        }
        self.resting.remove(&topic);
        // A session that is over releases its attempts at once; otherwise hands are free for the rest of the plan, if there is one.
        matches!(topic, Topic::Session(_)) || !self.planned.is_empty()
    }

    /// Plans, and does as much of it as there are hands.
    fn look(&mut self, now: Instant) {
        let connects = self.bus.client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed);
        if connects != self.connects || self.bus.client.connection_state() != async_nats::connection::State::Connected {
            self.connects = connects;
            self.state.distrust(now);
        }
        self.state.listen(now);
        if !self.caught_up {
            return;
        }
        // A plan is of its time: what was silent when it was made may have spoken since.
        if self.planned.is_empty() || now.saturating_duration_since(self.planned_at) >= TICK {
            self.planned = plan(&self.state, now, self.lapse).into();
            self.planned_at = now;
            self.resting.retain(|_, (until, _)| now < *until + REST.1);
        }
        while self.doing.len() < HANDS {
            let Some(command) = self.planned.pop_front() else { break };
            let topic = command.topic();
            let rests = self.resting.get(&topic).is_some_and(|(until, _)| now < *until);
            if !rests && self.busy.insert(topic.clone()) {
                let log = Log::new(self.bus.js.clone(), PATIENCE);
                let bus = self.bus.clone();
                let work = AssertUnwindSafe(Hands { bus, log }.carry_out(command)).catch_unwind();
                self.doing.spawn(async move { (topic, work.await.unwrap_or(Done::Failed)) });
            }
        }
    }

    /// Lets what is being said be said. What is not goes to the next watcher, which finds it undone.
    async fn finish(&mut self) {
        let all = async { while self.doing.join_next().await.is_some() {} };
        let _in_time = tokio::time::timeout(GRACE, all).await;
        self.doing.shutdown().await;
    }
}
