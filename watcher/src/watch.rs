//! The watcher's loop: folds what comes in, plans, and starts the commands of the plan.

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
    advisory::{self, ConnectionNews},
    canary::{self, Canary},
    carry_out::{Effect, Handler},
    config::Config,
    feed::Feed,
    plan::{Topic, plan},
    schedule::{Kind, Schedule},
    snapshot::Place,
    snapshotter::Snapshotter,
    state::State,
};

/// How often the loop plans at the least, where nothing is due before that.
const TICK: Duration = Duration::from_millis(250);
/// For how long an append is tried again that no server acknowledges.
const PATIENCE: Duration = Duration::from_secs(10);
/// The log counts as read to its end while at most this many events follow the last one folded.
const CAUGHT_UP: u64 = 1_000;
/// How long a topic is left alone after a failure: the first time, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a batch is left alone after another writer was first.
const OVERTAKEN: Duration = Duration::from_millis(100);
/// How long commands under way may take when the watcher stops.
const GRACE: Duration = Duration::from_secs(3);

/// What comes into the loop.
pub(crate) struct Incoming {
    pub(crate) feeds: mpsc::Receiver<Feed>,
    pub(crate) canaries: mpsc::Receiver<canary::Stored>,
    /// Closed if the watcher has no credentials of the broker's system account.
    pub(crate) connection_news: mpsc::Receiver<ConnectionNews>,
}

/// A client, and how often it had connected at the last look. After a reconnect, messages may have been missed.
struct TrackedConnection {
    client: Client,
    connects: Option<u64>,
}

impl TrackedConnection {
    fn new(client: Client) -> Self {
        let connects = advisory::connects(&client);
        Self { client, connects }
    }

    /// Whether the client is disconnected, or has reconnected since the last look.
    fn was_replaced(&mut self) -> bool {
        let connects = advisory::connects(&self.client);
        let before = std::mem::replace(&mut self.connects, connects);
        connects.is_none() || connects != before
    }
}

/// What a watcher starts with.
pub(crate) struct Start {
    /// The fold of the log up to a sequence.
    pub(crate) state: State,
    pub(crate) sequence: u64,
    /// Whether events before that were skipped because they could not be read.
    pub(crate) skipped: bool,
    /// The log's last sequence now.
    pub(crate) last: u64,
    pub(crate) snapshotter: Option<Snapshotter>,
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
    connection: TrackedConnection,
    /// The connection over which the broker says who is connected.
    system: Option<TrackedConnection>,
    /// Requests one of the watcher's own heartbeats at once.
    beat_now: Arc<Notify>,
    /// Whether events are delivered at once and not in larger chunks: slots of a batch may become free.
    low_latency: Arc<AtomicBool>,
    caught_up: bool,
    /// The log's last sequence when the watcher started: once it is folded, the log counts as read.
    last_at_start: u64,
    began: Instant,
    /// Events that were read.
    read: u64,
    /// Up to where the log is folded.
    place: Option<Place>,
    /// The last sequence of the log that is known by a command's effect: for a moment, it is greater than that of `place`.
    known: u64,
    snapshotter: Option<Snapshotter>,
    /// Whether events were skipped because they could not be read: a program that can read them must fold the whole log again.
    skipped: bool,
    schedule: Schedule,
    planned_at: Instant,
    /// A session began or ended since the last plan.
    outdated: bool,
    under_way: JoinSet<(Topic, Effect)>,
    /// What failed, until when it is left alone, and how long that is.
    backing_off: HashMap<Topic, (Instant, Duration)>,
}

impl Watcher {
    /// A watcher that starts with this state.
    pub(crate) fn new(bus: &Bus, config: &Config, beat_now: Arc<Notify>, low_latency: Arc<AtomicBool>, start: Start) -> Self {
        let caught_up = start.sequence >= start.last;
        if caught_up {
            info!("ready: the snapshot holds the whole log");
        }
        let log = Log::new(bus.js.clone(), PATIENCE);
        let handler = Handler {
            bus: bus.clone(),
            writer: Writer::new(log, Arc::clone(&start.gauge), Actor::Watcher, Addition::Attempts),
        };
        Self {
            state: start.state,
            lapse: config.lapse,
            handler,
            gauge: start.gauge,
            had_room: true,
            canary: Canary::default(),
            connection: TrackedConnection::new(bus.client.clone()),
            system: None,
            beat_now,
            low_latency,
            caught_up,
            last_at_start: start.last,
            began: Instant::now(),
            read: 0,
            place: None,
            known: 0,
            snapshotter: start.snapshotter,
            skipped: start.skipped,
            schedule: Schedule::default(),
            planned_at: Instant::now(),
            outdated: false,
            under_way: JoinSet::new(),
            backing_off: HashMap::new(),
        }
    }

    /// Runs until it is stopped.
    pub(crate) async fn watch(&mut self, mut incoming: Incoming, queues: &watch::Sender<BTreeSet<Queue>>, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut plan_now = false;
            let due = self.state.next_due(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                Some(feed) = incoming.feeds.recv() => plan_now = self.take_feed(feed, queues),
                Some(stored) = incoming.canaries.recv() => self.canary.acknowledged(stored),
                Some(news) = incoming.connection_news.recv() => self.take_connection_news(news),
                Some(done) = self.under_way.join_next() => plan_now = self.command_done(done),
                () = until(due), if due.is_some() => plan_now = true,
                _ = ticks.tick() => plan_now = true,
            }
            // A session that seems dead may have reconnected meanwhile.
            while let Ok(news) = incoming.connection_news.try_recv() {
                self.take_connection_news(news);
            }
            if let Some(sent) = self.canary.last() {
                self.state.own_heartbeat_received(sent);
            }
            let now = Instant::now();
            self.state.set_clock(now, Utc::now());
            self.check_hearing(now);
            if plan_now {
                self.start_due(now);
            }
        }
    }

    /// Folds what the broker reports of the runners' connections.
    fn take_connection_news(&mut self, news: ConnectionNews) {
        let now = Instant::now();
        match news {
            ConnectionNews::Listening(client) => {
                self.system = Some(TrackedConnection::new(client));
                self.state.connections_heard_from(now);
            }
            ConnectionNews::ServerAnswered(server, sent) => self.state.server_answered(&server, sent),
            ConnectionNews::Connected(key, connection, start) => self.state.connected(&key, connection, start, now),
            ConnectionNews::Disconnected(key, connection, by_client) => {
                self.check_hearing(now);
                if self.state.disconnected(&key, &connection, by_client, now) {
                    // Once this heartbeat comes back, the broker is known to be well; the next regular one would come later.
                    self.beat_now.notify_one();
                }
            }
        }
    }

    /// Checks whether the watcher receives everything: it did not reconnect, and its own heartbeats come back.
    fn check_hearing(&mut self, now: Instant) {
        if self.connection.was_replaced() {
            self.state.restart_silences(now);
        }
        // Without it, no disconnect is noticed; heartbeats still count.
        if self.system.as_mut().is_some_and(TrackedConnection::was_replaced) {
            self.state.connections_doubted_until(now);
        }
        self.state.check_hearing(now);
    }

    /// Folds a feed, and returns whether something may be due at once.
    fn take_feed(&mut self, feed: Feed, queues: &watch::Sender<BTreeSet<Queue>>) -> bool {
        let now = Instant::now();
        match feed {
            Feed::Events(events) => {
                let sessions_changed = events.observations.iter().any(|(_, observation)| observation.is_session_change());
                for (sequence, observation) in events.observations {
                    self.state.fold(sequence, &observation, now);
                }
                self.low_latency.store(!self.state.windows.is_empty(), Ordering::Relaxed);
                self.read += events.count;
                self.skipped |= events.skipped;
                if !self.caught_up && (events.pending <= CAUGHT_UP || events.last.sequence >= self.last_at_start) {
                    self.caught_up = true;
                    let took = self.began.elapsed();
                    info!("ready: read {} events in {:.1} s", self.read, took.as_secs_f32());
                }
                self.place = Some(events.last);
                self.outdated |= sessions_changed;
                if sessions_changed {
                    let served = self.state.queues();
                    queues.send_if_modified(|queues| {
                        let changed = *queues != served;
                        *queues = served;
                        changed
                    });
                }
                sessions_changed || self.state.is_due(now)
            }
            Feed::Beats(beats, last) => {
                for (worker, beat) in beats {
                    self.state.fold_heartbeat(&worker, &beat, now);
                }
                self.canary.received(last);
                false
            }
        }
    }

    /// Folds what a command changed, and returns whether more may be due.
    fn command_done(&mut self, done: Result<(Topic, Effect), tokio::task::JoinError>) -> bool {
        let Ok((topic, effect)) = done else { return true };
        let now = Instant::now();
        self.schedule.done(&topic);
        self.outdated |= matches!(topic, Topic::Session(_));
        self.known = self.known.max(effect.sequence());
        match (effect, &topic) {
            (Effect::Failed, _) => {
                let pause = self
                    .backing_off
                    .get(&topic)
                    .map_or(BACK_OFF.0, |(_, pause)| (*pause * 2).min(BACK_OFF.1));
                self.backing_off.insert(topic, (now + pause, pause));
                return !self.schedule.is_empty();
            }
            (Effect::Overtaken, Topic::Batch(_)) => {
                // Another watcher serves this batch, or events that are not folded yet are on their way.
                self.backing_off.insert(topic, (now + OVERTAKEN, BACK_OFF.0));
                return !self.schedule.is_empty();
            }
            (Effect::WaitsForSlot(sequence, again, over), Topic::Waiting(job)) => {
                self.state.timers.checked(*job, sequence, again);
                self.state.waits_for_slot(*job, over);
            }
            (Effect::Advanced(sequence, _, members), Topic::Batch(batch)) => self.state.windows.slots_given(*batch, sequence, &members),
            (Effect::Stopped(sequence, failures), Topic::Batch(batch)) => self.state.windows.stopped(*batch, sequence, failures),
            (Effect::MemberEnded { absent }, Topic::Member(job)) => self.state.windows.member_ended(*job, absent),
            (Effect::Lost(sequence, ended), _) => self.state.fold(sequence, &ended, now),
            (Effect::Released(_), Topic::Attempt(job, attempt, key)) => self.state.release(*job, *attempt, key),
            (Effect::Appended(sequence), Topic::Waiting(job)) => self.state.timers.appended(*job, sequence),
            (Effect::NotDue(sequence, again), Topic::Waiting(job)) => self.state.timers.checked(*job, sequence, again),
            (Effect::Dependencies(answers), Topic::Waiting(job)) => self.state.timers.dependencies_checked(*job, &answers),
            (Effect::Released(_) | Effect::Appended(_) | Effect::NotDue(..) | Effect::Dependencies(_), _)
            | (Effect::WaitsForSlot(..) | Effect::Advanced(..) | Effect::Stopped(..) | Effect::MemberEnded { .. } | Effect::Overtaken, _) =>
                {}
        }
        self.backing_off.remove(&topic);
        // After a lost session its attempts are due, and a job whose last condition is met may start. After an attempt, there is
        // capacity for the rest of the plan, if any is left.
        !matches!(topic, Topic::Attempt(..)) || !self.schedule.is_empty()
    }

    /// Plans where that is due, and starts as many commands as there is capacity for.
    fn start_due(&mut self, now: Instant) {
        if !self.caught_up {
            return;
        }
        self.snapshot(now);
        let has_room = self.gauge.fill().has_room(Addition::Attempts);
        if has_room && !self.had_room {
            // The topics that are left alone failed because the log was full.
            self.backing_off.clear();
        }
        self.had_room = has_room;
        if self.must_plan(now) {
            self.schedule.plan(plan(&self.state, now, self.lapse));
            self.planned_at = now;
            self.outdated = false;
            self.backing_off.retain(|_, (until, _)| now < *until + BACK_OFF.1);
        }
        let backing_off = &self.backing_off;
        let backs_off = |topic: &Topic| backing_off.get(topic).is_some_and(|(until, _)| now < *until);
        while let Some((topic, command)) = self.schedule.next(backs_off) {
            let work = AssertUnwindSafe(self.handler.clone().carry_out(command)).catch_unwind();
            self.under_way.spawn(async move { (topic, work.await.unwrap_or(Effect::Failed)) });
        }
    }

    /// Whether the last plan is out of date: a session that was silent then may have sent a heartbeat since. A backlog of timers,
    /// of which more become due at each moment, is not planned again for each of them.
    fn must_plan(&self, now: Instant) -> bool {
        let passed = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        self.schedule.is_empty()
            || self.outdated
            || passed(self.state.next_death(self.planned_at))
            || (self.schedule.is_idle(Kind::Timers) && passed(self.state.next_timer(self.planned_at)))
            || now.saturating_duration_since(self.planned_at) >= TICK
    }

    /// Saves a snapshot, if it is due. The state must be the fold of the log and no more: events that were appended and not folded
    /// yet must not be in it, since the log could lose them.
    fn snapshot(&mut self, now: Instant) {
        if let (Some(snapshotter), Some(place)) = (&mut self.snapshotter, &self.place)
            && place.sequence >= self.known
        {
            snapshotter.save_if_due(&self.state, place, self.skipped, now);
        }
    }

    /// Waits for the commands under way. What they leave undone, the next watcher finds due.
    pub(crate) async fn finish(&mut self) {
        let all = async { while self.under_way.join_next().await.is_some() {} };
        let _in_time = tokio::time::timeout(GRACE, all).await;
        self.under_way.shutdown().await;
        if let Some(snapshotter) = &mut self.snapshotter {
            snapshotter.finish(GRACE).await;
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
