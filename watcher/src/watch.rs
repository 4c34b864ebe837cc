//! The loop around the plan.

use std::{
    collections::{BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::Client;
use bus::{
    envelope::Actor,
    ids::Queue,
    log::{
        append::Log,
        connect::Bus,
        room::{Addition, Gauge},
        writer::Writer,
    },
};
use chrono::Utc;
use futures::FutureExt as _;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    advisory::{self, Advice},
    canary::{self, Canary},
    carry_out::{Done, Handler},
    config::Config,
    feed::Feed,
    keeper::Keeper,
    plan::{Topic, plan},
    schedule::{Lane, Lanes},
    snapshot::Place,
    state::State,
};

/// How often the time is looked at, where nothing says that something is due before that.
const TICK: Duration = Duration::from_millis(250);
/// For how long an append is tried that nobody acknowledges.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events that may stand behind the last one folded while the log counts as read up to now.
const CAUGHT_UP: u64 = 1_000;
/// How long a topic rests after a failure: the first time, and at most.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a batch rests of which others said something first.
const OVERTAKEN: Duration = Duration::from_millis(100);
/// How long what is being said may take at a stop.
const GRACE: Duration = Duration::from_secs(3);

/// Everything that the loop is told.
pub(crate) struct Incoming {
    pub(crate) feeds: mpsc::Receiver<Feed>,
    pub(crate) canaries: mpsc::Receiver<canary::Stored>,
    /// Closed where nobody listens to the broker's system account.
    pub(crate) advices: mpsc::Receiver<Advice>,
}

/// A connection, and how often it was made when it was last looked at; another one may have missed what happened before it.
struct Line {
    client: Client,
    connects: Option<u64>,
}

impl Line {
    fn new(client: Client) -> Self {
        let connects = advisory::made(&client);
        Self { client, connects }
    }

    /// Whether it is broken now, or another one than at the last look.
    fn is_another(&mut self) -> bool {
        let connects = advisory::made(&self.client);
        let before = std::mem::replace(&mut self.connects, connects);
        connects.is_none() || connects != before
    }
}

/// What a watcher begins with.
pub(crate) struct Begin {
    /// The fold of the log up to a sequence.
    pub(crate) state: State,
    pub(crate) sequence: u64,
    /// Whether events before that were skipped, which could not be read.
    pub(crate) skipped: bool,
    /// The log's last sequence now.
    pub(crate) last: u64,
    pub(crate) keeper: Option<Keeper>,
    /// How full the log is.
    pub(crate) gauge: Arc<Gauge>,
}

pub(crate) struct Watcher {
    state: State,
    lapse: Duration,
    handler: Handler,
    /// How full the log is, and whether it had room for attempts.
    gauge: Arc<Gauge>,
    had_room: bool,
    canary: Canary,
    line: Line,
    /// The connection over which the broker says who is connected.
    system: Option<Line>,
    /// Asks for a heartbeat of the watcher's own, now.
    beat_now: Arc<Notify>,
    /// Events are wanted at once: slots of a batch may become free.
    hurry: Arc<AtomicBool>,
    caught_up: bool,
    /// The last event when the watcher began: with it, the log counts as read.
    last_at_start: u64,
    began: Instant,
    /// Events that were read.
    read: u64,
    /// Up to where the log is folded.
    place: Option<Place>,
    /// Up to where the log is known by what we did: further than it is folded, for a moment.
    known: u64,
    keeper: Option<Keeper>,
    /// Whether events were skipped that could not be read: a program that can must read the log anew.
    skipped: bool,
    lanes: Lanes,
    planned_at: Instant,
    /// A session began or ended since the last plan.
    outdated: bool,
    doing: JoinSet<(Topic, Done)>,
    /// What failed, until when it rests, and how long that is.
    resting: HashMap<Topic, (Instant, Duration)>,
}

impl Watcher {
    /// One that begins with this.
    pub(crate) fn new(bus: &Bus, config: &Config, beat_now: Arc<Notify>, hurry: Arc<AtomicBool>, begin: Begin) -> Self {
        let caught_up = begin.sequence >= begin.last;
        if caught_up {
            info!("ready: the log has nothing that is not known");
        }
        let log = Log::new(bus.js.clone(), PATIENCE);
        let handler = Handler {
            bus: bus.clone(),
            writer: Writer::new(log, Arc::clone(&begin.gauge), Actor::Watcher, Addition::Attempts),
        };
        Self {
            state: begin.state,
            lapse: config.lapse,
            handler,
            gauge: begin.gauge,
            had_room: true,
            canary: Canary::default(),
            line: Line::new(bus.client.clone()),
            system: None,
            beat_now,
            hurry,
            caught_up,
            last_at_start: begin.last,
            began: Instant::now(),
            read: 0,
            place: None,
            known: 0,
            keeper: begin.keeper,
            skipped: begin.skipped,
            lanes: Lanes::default(),
            planned_at: Instant::now(),
            outdated: false,
            doing: JoinSet::new(),
            resting: HashMap::new(),
        }
    }

    pub(crate) async fn watch(&mut self, mut incoming: Incoming, queues: &watch::Sender<BTreeSet<Queue>>, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut look = false;
            let due = self.state.next_due(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                Some(feed) = incoming.feeds.recv() => look = self.take_in(feed, queues),
                Some(stored) = incoming.canaries.recv() => self.canary.acknowledged(stored),
                Some(advice) = incoming.advices.recv() => self.take_advice(advice),
                Some(done) = self.doing.join_next() => look = self.settle(done),
                () = until(due), if due.is_some() => look = true,
                _ = ticks.tick() => look = true,
            }
            // What came meanwhile may be that the dead one lives.
            while let Ok(advice) = incoming.advices.try_recv() {
                self.take_advice(advice);
            }
            if let Some(sent) = self.canary.last() {
                self.state.hear_self(sent);
            }
            let now = Instant::now();
            self.state.tell_time(now, Utc::now());
            self.listen(now);
            if look {
                self.look(now);
            }
        }
    }

    /// Takes note of what the broker says of the runners' connections.
    fn take_advice(&mut self, advice: Advice) {
        let now = Instant::now();
        match advice {
            Advice::Listening(client) => {
                self.system = Some(Line::new(client));
                self.state.listen_to_connections(now);
            }
            Advice::Answered(server, sent) => self.state.server_answered(&server, sent),
            Advice::Made(key, connection, start) => self.state.connected(&key, connection, start, now),
            Advice::Ended(key, connection, telling) => {
                self.listen(now);
                if self.state.disconnected(&key, &connection, telling, now) {
                    // Whether the broker is well shows when this one comes back, and not only when the next one is due.
                    self.beat_now.notify_one();
                }
            }
        }
    }

    /// Looks whether the watcher hears: its connections are those that they were, and its own heartbeats come back.
    fn listen(&mut self, now: Instant) {
        if self.line.is_another() {
            self.state.distrust(now);
        }
        // Its loss makes the quick sign impossible, and nothing else.
        if self.system.as_mut().is_some_and(Line::is_another) {
            self.state.doubt_connections(now);
        }
        self.state.listen(now);
    }

    /// Folds what came, and says whether something may follow from it at once.
    fn take_in(&mut self, feed: Feed, queues: &watch::Sender<BTreeSet<Queue>>) -> bool {
        let now = Instant::now();
        match feed {
            Feed::Events(events) => {
                let of_workers = events.seen.iter().any(|(_, seen)| seen.is_of_worker());
                for (sequence, seen) in events.seen {
                    self.state.see(sequence, &seen, now);
                }
                self.hurry.store(!self.state.windows.is_empty(), Ordering::Relaxed);
                self.read += events.count;
                self.skipped |= events.skipped;
                if !self.caught_up && (events.pending <= CAUGHT_UP || events.last.sequence >= self.last_at_start) {
                    self.caught_up = true;
                    let took = self.began.elapsed();
                    info!("ready: read {} events in {:.1} s", self.read, took.as_secs_f32());
                }
                self.place = Some(events.last);
                self.outdated |= of_workers;
                if of_workers {
                    let served = self.state.queues();
                    queues.send_if_modified(|queues| {
                        let changed = *queues != served;
                        *queues = served;
                        changed
                    });
                }
                of_workers || self.state.is_due(now)
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
        self.lanes.done(&topic);
        self.outdated |= matches!(topic, Topic::Session(_));
        self.known = self.known.max(done.sequence());
        match (done, &topic) {
            (Done::Failed, _) => {
                let pause = self.resting.get(&topic).map_or(REST.0, |(_, pause)| (*pause * 2).min(REST.1));
                self.resting.insert(topic, (now + pause, pause));
                return !self.lanes.is_empty();
            }
            (Done::Overtaken, Topic::Batch(_)) => {
                // Another watcher minds it, or what we do not know yet is on its way.
                self.resting.insert(topic, (now + OVERTAKEN, REST.0));
                return !self.lanes.is_empty();
            }
            (Done::WaitsForSlot(sequence, again, over), Topic::Waiting(job)) => {
                self.state.timers.looked(*job, sequence, again);
                self.state.turn(*job, over);
            }
            (Done::Advanced(sequence, _, members), Topic::Batch(batch)) => self.state.windows.given(*batch, sequence, &members),
            (Done::Stopped(sequence, failures), Topic::Batch(batch)) => self.state.windows.stopped(*batch, sequence, failures),
            (Done::MemberEnded { absent }, Topic::Member(job)) => self.state.windows.seen_to(*job, absent),
            (Done::Lost(sequence, seen), _) => self.state.see(sequence, &seen, now),
            (Done::Released(_), Topic::Attempt(job, attempt, key)) => self.state.release(*job, *attempt, key),
            (Done::Appended(sequence), Topic::Waiting(job)) => self.state.timers.said(*job, sequence),
            (Done::NotDue(sequence, again), Topic::Waiting(job)) => self.state.timers.looked(*job, sequence, again),
            (Done::Dependencies(answers), Topic::Waiting(job)) => self.state.timers.asked(*job, &answers),
            (Done::Released(_) | Done::Appended(_) | Done::NotDue(..) | Done::Dependencies(_), _)
            | (Done::WaitsForSlot(..) | Done::Advanced(..) | Done::Stopped(..) | Done::MemberEnded { .. } | Done::Overtaken, _) => {}
        }
        self.resting.remove(&topic);
        // A session that is over releases its attempts at once, and a job whose last condition is met may start; otherwise hands
        // are free for the rest of the plan, if there is one.
        !matches!(topic, Topic::Attempt(..)) || !self.lanes.is_empty()
    }

    /// Plans, and does as much of it as there are hands.
    fn look(&mut self, now: Instant) {
        if !self.caught_up {
            return;
        }
        self.keep(now);
        let has_room = self.gauge.fill().has_room(Addition::Attempts);
        if has_room && !self.had_room {
            // What rests, does so for want of it.
            self.resting.clear();
        }
        self.had_room = has_room;
        if self.must_plan(now) {
            self.lanes.plan(plan(&self.state, now, self.lapse));
            self.planned_at = now;
            self.outdated = false;
            self.resting.retain(|_, (until, _)| now < *until + REST.1);
        }
        let resting = &self.resting;
        let rests = |topic: &Topic| resting.get(topic).is_some_and(|(until, _)| now < *until);
        while let Some((topic, command)) = self.lanes.next(rests) {
            let work = AssertUnwindSafe(self.handler.clone().carry_out(command)).catch_unwind();
            self.doing.spawn(async move { (topic, work.await.unwrap_or(Done::Failed)) });
        }
    }

    /// A plan is of its time: what was silent when it was made may have spoken since. But a backlog of timers, of which more
    /// are due at each moment, is not planned anew for each of them.
    fn must_plan(&self, now: Instant) -> bool {
        let passed = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        self.lanes.is_empty()
            || self.outdated
            || passed(self.state.next_death(self.planned_at))
            || (self.lanes.is_idle(Lane::Timers) && passed(self.state.next_timer(self.planned_at)))
            || now.saturating_duration_since(self.planned_at) >= TICK
    }

    /// Keeps a snapshot, if it is time for that. What is known beyond the fold must not be in it: should the log lose that, it
    /// never was.
    fn keep(&mut self, now: Instant) {
        if let (Some(keeper), Some(place)) = (&mut self.keeper, &self.place)
            && place.sequence >= self.known
        {
            keeper.consider(&self.state, place, self.skipped, now);
        }
    }

    /// Lets what is being said be said. What is not goes to the next watcher, which finds it undone.
    pub(crate) async fn finish(&mut self) {
        let all = async { while self.doing.join_next().await.is_some() {} };
        let _in_time = tokio::time::timeout(GRACE, all).await;
        self.doing.shutdown().await;
        if let Some(keeper) = &mut self.keeper {
            keeper.finish(GRACE).await;
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
