//! One session of a runner: pulls the jobs that fit, starts an attempt for each, and follows the control signals.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::Message;
use bus::{
    envelope::Envelope,
    ids::Queue,
    job::{Job, JobEvent},
    log::{
        puller::{self, Pulled},
        read,
        work::Work,
    },
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use crate::{
    attempt::{
        context::Context,
        registry::StopReason,
        room::Room,
        run,
        slot::{FreedSlot, Slot, SlotRequest},
    },
    restart::{attempt, session::Resumed},
    session::{
        background::{Answer, Background},
        control::{self, ControlSignals, Signal},
        dispatcher::{Action, Dispatcher, Verdict},
        ending::Ending,
        mode::{Mode, RunnerSignals},
        prefetched::Prefetched,
        presence::{SessionStatus, SharedStatus},
        queues::{self, EXPIRES, WorkQueues},
    },
};

/// After how long a job that does not fit now may be delivered again, to this worker or to another.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(20);
/// The same for a job that this machine can never hold or that this program cannot read: another worker must take it.
const NOT_OURS_PAUSE: Duration = Duration::from_secs(5);

/// How often a session that is stopping checks whether its attempts have ended.
const LOOK: Duration = Duration::from_millis(20);
/// How often a session with attempts checks whether its connection was re-established.
const CATCH_UP: Duration = Duration::from_millis(500);

/// A session that serves its queues.
pub(crate) struct Session {
    context: Arc<Context>,
    dispatcher: Dispatcher,
    work_queues: WorkQueues,
    control: ControlSignals,
    status: SharedStatus,
    freed: (mpsc::UnboundedSender<FreedSlot>, mpsc::UnboundedReceiver<FreedSlot>),
    /// Attempts that were claimed before there is room for them.
    prefetched: Prefetched,
    tracker: TaskTracker,
    /// Attempts that have a slot.
    running: usize,
    /// How often the connection was established; events that were stored while there was none are read from the log.
    connects: u64,
    /// The sequence of the session's registration.
    registered: u64,
    /// Whether the session asks for work, and until when its attempts may run.
    mode: Mode,
    background: Background,
}

impl Session {
    /// Prepares to serve these queues with this much room.
    ///
    /// # Errors
    /// If the consumers or subscriptions cannot be made.
    pub(crate) async fn begin(
        context: Arc<Context>,
        queues: &[Queue],
        total: Room,
        status: SharedStatus,
        tracker: TaskTracker,
    ) -> Result<Self, queues::Error> {
        let work_queues = WorkQueues::connect(&context.js, queues).await?;
        let dispatcher = Dispatcher::new(total, work_queues.classes());
        let control = ControlSignals::subscribe(&context.js, &context.worker, context.session).await?;
        let connects = connects(&context);
        Ok(Self {
            connects,
            context,
            dispatcher,
            work_queues,
            control,
            status,
            freed: mpsc::unbounded_channel(),
            prefetched: Prefetched::default(),
            tracker,
            running: 0,
            registered: 0,
            mode: Mode::default(),
            background: Background::new(),
        })
    }

    /// Notes the sequence of the session's registration, and reads from the log whether the worker is cordoned.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(crate) async fn registered(&mut self, sequence: u64) -> Result<(), read::Error> {
        self.registered = sequence;
        let history = read::worker(&self.context.js, &self.context.worker).await?;
        self.mode
            .set_cordon(control::worker_state(&history.events, self.context.session, sequence).0);
        Ok(())
    }

    /// Serves until something ends the session. Its attempts continue in the tracker's tasks.
    pub(crate) async fn serve(&mut self, signals: &RunnerSignals) -> Ending {
        let mut fill = signals.fill.clone();
        loop {
            self.mode.set_fill(*fill.borrow_and_update());
            if let Some(ending) = self.mode.ending(self.idle()) {
                return ending;
            }
            self.catch_up();
            let again = match self.work().await {
                Ok(again) => again,
                Err(why) => return Ending::Broken(why),
            };
            *self.status.lock() = SessionStatus {
                free: self.dispatcher.free(),
                wants_work: self.mode.wants_work(),
            };
            let again = tokio::time::sleep_until(self.look_again(again).into());
            tokio::select! {
                () = signals.stop.cancelled(), if !self.mode.is_stopping() => self.mode.stop(signals.drain, self.context.attempts.snapshot().1.len()),
                () = signals.restart.cancelled(), if !self.mode.is_stopping() => return Ending::Restarting,
                () = signals.unacknowledged.cancelled() => return Ending::Unacknowledged,
                Some(freed) = self.freed.1.recv() => {
                    self.freed(&freed);
                    while let Ok(freed) = self.freed.1.try_recv() {
                        self.freed(&freed);
                    }
                }
                Ok(()) = fill.changed() => {}
                pulled = self.work_queues.next() => self.take_all(pulled),
                answer = self.background.next() => if let Some(ending) = self.answered(answer) {
                    return ending;
                },
                signal = self.control.next() => match signal {
                    Signal::SessionEnds(ending) => return ending,
                    Signal::Cordon(cordon) => {
                        self.mode.set_cordon(cordon);
                        self.background.note_newer_cordon();
                    }
                    Signal::Cancel(job) => self.context.attempts.stop(job, StopReason::Cancel),
                },
                () = again => {}
            }
        }
    }

    /// Grants slots to the prefetched attempts, and asks for more jobs; returns all prefetched attempts where no work is wanted.
    ///
    /// # Errors
    /// The reason, if the work queues are gone.
    async fn work(&mut self) -> Result<Option<Instant>, String> {
        if !self.mode.wants_work() {
            self.prefetched.return_all(&mut self.dispatcher);
            return Ok(None);
        }
        let (running, freed) = (&mut self.running, &self.freed.0);
        self.prefetched
            .grant_slots(&mut self.dispatcher, |room| take_slot(running, freed, room));
        let idle = self.idle();
        self.background.recreate(&mut self.work_queues, idle)?;
        // A session that may be over asks for nothing until it has read the log.
        if !self.work_queues.are_connected() || !self.is_caught_up() {
            return Ok(None);
        }
        Ok(self.dispatch().await)
    }

    /// When to run the loop again although nothing happened.
    fn look_again(&self, dispatcher: Option<Instant>) -> Instant {
        let now = Instant::now();
        let quiet = if self.mode.is_stopping() {
            LOOK
        } else if self.idle() && self.is_caught_up() {
            EXPIRES
        } else {
            CATCH_UP
        };
        let soon = dispatcher
            .into_iter()
            .chain(self.prefetched.first_expires())
            .chain(self.mode.drain_deadline(self.idle()));
        soon.fold(now + quiet, Instant::min)
    }

    fn freed(&mut self, freed: &FreedSlot) {
        self.running = self.running.saturating_sub(1);
        self.dispatcher.released(Instant::now(), freed.room, freed.took);
    }

    /// Whether nothing is being executed or committed.
    fn idle(&self) -> bool {
        self.running == 0 && self.context.attempts.is_empty()
    }

    /// Carries out the dispatcher's actions.
    async fn dispatch(&mut self) -> Option<Instant> {
        let (actions, again) = self.dispatcher.plan(Instant::now());
        let idle = self.idle();
        for action in actions {
            match action {
                Action::Ask { work_queue, count } => {
                    if let Err(error) = self.work_queues.ask(work_queue, count, idle).await {
                        self.broken(None, &error.to_string());
                    }
                }
                Action::CountWaiting { work_queue } => self.background.count_waiting(&self.work_queues, work_queue),
            }
        }
        again
    }

    /// Handles a pulled message, and all others that have arrived, before the dispatcher asks for more.
    fn take_all(&mut self, pulled: Result<Pulled, puller::Error>) {
        let mut next = pulled.map(Some);
        loop {
            match next {
                Ok(None) => return,
                Ok(Some(Pulled::Message(work_queue, message))) => self.offered(work_queue, *message),
                Ok(Some(Pulled::Ended(work_queue, undelivered))) => self.dispatcher.ended(work_queue, undelivered),
                Ok(Some(Pulled::Gone(work_queue, words))) => self.broken(Some(work_queue), &words),
                Err(error) => self.broken(None, &error.to_string()),
            }
            next = self.work_queues.try_next();
        }
    }

    /// The work queues are gone, and nothing that was asked for will come.
    fn broken(&mut self, work_queue: Option<usize>, words: &str) {
        self.work_queues.broken(work_queue, words);
        self.dispatcher.requests_are_lost();
    }

    /// A job was delivered: it becomes an attempt where it fits, and is handed back where it does not.
    fn offered(&mut self, work_queue: usize, message: Message) {
        let work = Work::new(message, &self.tracker);
        let recorded = match work.recorded() {
            Ok(Some(recorded)) => recorded,
            Ok(None) => {
                self.dispatcher.discarded(work_queue);
                self.tracker.spawn(work.acknowledge());
                return;
            }
            Err(error) => {
                // Logged once, not at every delivery.
                if work.deliveries() == 1 {
                    error!(
                        "cannot read a job; leaving it to a worker that can: {}",
                        crate::errors::chain(&error)
                    );
                }
                self.dispatcher.discarded(work_queue);
                self.tracker.spawn(work.refuse(NOT_OURS_PAUSE));
                return;
            }
        };
        let Some(job) = Job::from_ready(&recorded) else {
            self.dispatcher.discarded(work_queue);
            self.tracker.spawn(work.acknowledge());
            return;
        };
        let room = Room::of(&job.spec.resources);
        let id = job.id;
        if !self.mode.wants_work() {
            self.dispatcher.discarded(work_queue);
            self.tracker.spawn(work.refuse(NO_ROOM_PAUSE));
            return;
        }
        let now = Instant::now();
        let verdict = self.dispatcher.delivered(work_queue, room, now);
        let offer = Offer {
            work,
            job,
            ready: recorded.envelope,
        };
        match verdict {
            Verdict::Run => {
                let slot = take_slot(&mut self.running, &self.freed.0, room);
                self.start(offer, SlotRequest::Granted(slot));
            }
            Verdict::Prefetch => {
                let request = self.prefetched.add(room, now);
                self.start(offer, request);
            }
            Verdict::NoRoom => drop(self.tracker.spawn(offer.work.refuse(NO_ROOM_PAUSE))),
            Verdict::TooBig => {
                if offer.work.deliveries() == 1 {
                    warn!(job.id = %id, "job {id} needs more than this machine has; leaving it to another worker");
                }
                self.tracker.spawn(offer.work.refuse(NOT_OURS_PAUSE));
            }
        }
    }

    /// Starts an attempt at a job that was delivered.
    fn start(&self, offer: Offer, request: SlotRequest) {
        let context = Arc::clone(&self.context);
        self.tracker
            .spawn(async move { Box::pin(run::run(context, offer.work, offer.job, offer.ready, request)).await });
    }

    /// Continues an attempt that the last runner left.
    pub(crate) fn resume(&mut self, resumed: Resumed) {
        let Resumed { left, writer, entry } = resumed;
        let room = Room::of(&writer.job().spec.resources);
        self.dispatcher.resumed(room);
        let slot = take_slot(&mut self.running, &self.freed.0, room);
        let context = Arc::clone(&self.context);
        self.tracker
            .spawn(async move { Box::pin(attempt::resume(context, writer, entry, left, slot)).await });
    }

    /// After a reconnect, reads the events of this worker and of its attempts that were stored meanwhile.
    fn catch_up(&mut self) {
        if !self.is_caught_up() {
            self.background.catch_up(&self.context, self.registered, connects(&self.context));
        }
    }

    fn is_caught_up(&self) -> bool {
        self.connects == connects(&self.context)
    }

    /// Handles an answer to a background question; returns the session's end, if the answer says so.
    fn answered(&mut self, answer: Answer) -> Option<Ending> {
        match answer {
            Answer::WorkWaiting(work_queue, messages) => self.dispatcher.waiting(work_queue, messages),
            Answer::Recreated(recreated) => self.work_queues.recreated(recreated),
            Answer::CaughtUp(_, Ok((_, Some(ending)))) => return Some(ending),
            Answer::CaughtUp(connects, Ok((cordon, None))) => {
                if !self.background.has_newer_cordon() {
                    self.mode.set_cordon(cordon);
                }
                self.connects = connects;
            }
            // The next turn of the loop tries again.
            Answer::CaughtUp(_, Err(why)) => debug!("cannot read the events of worker {} yet: {why}", self.context.worker),
        }
        None
    }
}

/// A job that was delivered.
struct Offer {
    work: Work,
    job: Job,
    ready: Envelope<JobEvent>,
}

/// A slot that the dispatcher has granted; it is freed when it is dropped.
fn take_slot(running: &mut usize, freed: &mpsc::UnboundedSender<FreedSlot>, room: Room) -> Slot {
    *running += 1;
    Slot::new(room, freed.clone())
}

fn connects(context: &Context) -> u64 {
    context.js.client().statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
}
