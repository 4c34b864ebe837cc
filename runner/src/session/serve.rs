//! One session of a runner: pulls what fits, runs it, and listens for what concerns it.

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
        registry::Stop,
        room::Room,
        run,
        slot::{Freed, Share, Taken},
    },
    restart::{attempt, session::Resumed},
    session::{
        background::{Aside, Asides},
        control::{self, Facts, Word},
        dispatcher::{Dispatcher, Response, Verdict},
        ending::Ending,
        mode::{Mode, Told},
        presence::{Shown, Standing},
        queues::{self, EXPIRES, Lanes},
        slots::Waiting,
    },
};

/// After how long work that does not fit now may be offered again, to us or to another worker.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(20);
/// The same for work that this machine can never hold, or this program cannot read: somebody else must.
const NOT_OURS_PAUSE: Duration = Duration::from_secs(5);

/// How often a session that is ending looks whether its attempts have.
const LOOK: Duration = Duration::from_millis(20);
/// How often a session with attempts looks whether its connection was made anew.
const CATCH_UP: Duration = Duration::from_millis(500);

/// A session that serves its queues.
pub(crate) struct Session {
    context: Arc<Context>,
    dispatcher: Dispatcher,
    lanes: Lanes,
    facts: Facts,
    shown: Shown,
    freed: (mpsc::UnboundedSender<Freed>, mpsc::UnboundedReceiver<Freed>),
    /// Attempts that were claimed ahead.
    waiting: Waiting,
    tracker: TaskTracker,
    /// Attempts that have their room still.
    running: usize,
    /// How often the connection was made; facts that were said while it was not are read again.
    connects: u64,
    /// The sequence of the session's registration.
    registered: u64,
    /// Whether new work is wanted, and until when what runs may go on.
    mode: Mode,
    asides: Asides,
}

impl Session {
    /// Gets ready to serve these queues with this much room.
    ///
    /// # Errors
    /// If the consumers or subscriptions cannot be made.
    pub(crate) async fn begin(
        context: Arc<Context>,
        queues: &[Queue],
        total: Room,
        shown: Shown,
        tracker: TaskTracker,
    ) -> Result<Self, queues::Error> {
        let lanes = Lanes::open(&context.js, queues).await?;
        let dispatcher = Dispatcher::new(total, lanes.classes());
        let facts = Facts::listen(&context.js, &context.worker, context.session).await?;
        let connects = connects(&context);
        Ok(Self {
            connects,
            context,
            dispatcher,
            lanes,
            facts,
            shown,
            freed: mpsc::unbounded_channel(),
            waiting: Waiting::default(),
            tracker,
            running: 0,
            registered: 0,
            mode: Mode::default(),
            asides: Asides::new(),
        })
    }

    /// Takes in that the session is registered, and what the log says of its worker up to there.
    ///
    /// # Errors
    /// If the log does not tell.
    pub(crate) async fn registered(&mut self, sequence: u64) -> Result<(), read::Error> {
        self.registered = sequence;
        let history = read::worker(&self.context.js, &self.context.worker).await?;
        self.mode
            .cordoned(control::standing(&history.events, self.context.session, sequence).0);
        Ok(())
    }

    /// Serves until something ends the session. Attempts go on in the tracker's tasks.
    pub(crate) async fn serve(&mut self, told: &Told) -> Ending {
        let mut fill = told.fill.clone();
        loop {
            self.mode.filled(*fill.borrow_and_update());
            if let Some(ending) = self.mode.over(self.idle()) {
                return ending;
            }
            self.catch_up();
            let again = match self.work().await {
                Ok(again) => again,
                Err(why) => return Ending::Broken(why),
            };
            *self.shown.lock() = Standing {
                free: self.dispatcher.free(),
                wants_work: self.mode.wants_work(),
            };
            let again = tokio::time::sleep_until(self.look_again(again).into());
            tokio::select! {
                () = told.stop.cancelled(), if !self.mode.closes() => self.mode.close(told.drain, self.context.attempts.snapshot().1.len()),
                () = told.restart.cancelled(), if !self.mode.closes() => return Ending::Restarting,
                () = told.unheard.cancelled() => return Ending::Unheard,
                Some(freed) = self.freed.1.recv() => {
                    self.freed(&freed);
                    while let Ok(freed) = self.freed.1.try_recv() {
                        self.freed(&freed);
                    }
                }
                Ok(()) = fill.changed() => {}
                pulled = self.lanes.next() => self.take_all(pulled),
                aside = self.asides.next() => if let Some(ending) = self.answered(aside) {
                    return ending;
                },
                word = self.facts.next() => match word {
                    Word::Ends(ending) => return ending,
                    Word::Cordon(cordon) => {
                        self.mode.cordoned(cordon);
                        self.asides.overtake();
                    }
                    Word::Cancel(job) => self.context.attempts.stop(job, Stop::Cancel),
                },
                () = again => {}
            }
        }
    }

    /// Gives room to what waits for it, and asks for more; or for nothing, where no work is wanted.
    ///
    /// # Errors
    /// In words, if there is nobody to ask.
    async fn work(&mut self) -> Result<Option<Instant>, String> {
        if !self.mode.wants_work() {
            self.waiting.dismiss(&mut self.dispatcher);
            return Ok(None);
        }
        let (running, freed) = (&mut self.running, &self.freed.0);
        self.waiting.make_way(&mut self.dispatcher, |room| take(running, freed, room));
        let idle = self.idle();
        self.asides.mend(&mut self.lanes, idle)?;
        // Who does not know yet whether its session is over asks for nothing.
        if !self.lanes.are_there() || !self.is_caught_up() {
            return Ok(None);
        }
        Ok(self.dispatch().await)
    }

    /// When to look at everything again although nothing happened.
    fn look_again(&self, dispatcher: Option<Instant>) -> Instant {
        let now = Instant::now();
        let quiet = if self.mode.closes() {
            LOOK
        } else if self.idle() && self.is_caught_up() {
            EXPIRES
        } else {
            CATCH_UP
        };
        let soon = dispatcher
            .into_iter()
            .chain(self.waiting.until())
            .chain(self.mode.drained_at(self.idle()));
        soon.fold(now + quiet, Instant::min)
    }

    fn freed(&mut self, freed: &Freed) {
        self.running = self.running.saturating_sub(1);
        self.dispatcher.released(Instant::now(), freed.room, freed.took);
    }

    /// Whether nothing is being executed or committed.
    fn idle(&self) -> bool {
        self.running == 0 && self.context.attempts.is_empty()
    }

    /// Carries out what the dispatcher wants.
    async fn dispatch(&mut self) -> Option<Instant> {
        let (responses, again) = self.dispatcher.plan(Instant::now());
        let idle = self.idle();
        for response in responses {
            match response {
                Response::Ask { lane, count } => {
                    if let Err(error) = self.lanes.ask(lane, count, idle).await {
                        self.broke(None, &error.to_string());
                    }
                }
                Response::LookUp { lane } => self.asides.look_up(&self.lanes, lane),
            }
        }
        again
    }

    /// Takes what was pulled, and whatever else has come already, before anything new is asked for.
    fn take_all(&mut self, pulled: Result<Pulled, puller::Error>) {
        let mut next = pulled.map(Some);
        loop {
            match next {
                Ok(None) => return,
                Ok(Some(Pulled::Message(lane, message))) => self.offered(lane, *message),
                Ok(Some(Pulled::Ended(lane, undelivered))) => self.dispatcher.ended(lane, undelivered),
                Ok(Some(Pulled::Gone(lane, words))) => self.broke(Some(lane), &words),
                Err(error) => self.broke(None, &error.to_string()),
            }
            next = self.lanes.try_next();
        }
    }

    /// Nothing that was asked for will come.
    fn broke(&mut self, lane: Option<usize>, words: &str) {
        self.lanes.broke(lane, words);
        self.dispatcher.asks_are_gone();
    }

    /// Work was offered: becomes an attempt where it fits, and goes back where it does not.
    fn offered(&mut self, lane: usize, message: Message) {
        let work = Work::new(message, &self.tracker);
        let recorded = match work.recorded() {
            Ok(Some(recorded)) => recorded,
            Ok(None) => {
                self.dispatcher.discarded(lane);
                self.tracker.spawn(work.acknowledge());
                return;
            }
            Err(error) => {
                // Told once, not at every delivery.
                if work.deliveries() == 1 {
                    error!(
                        "cannot read a job, and leave it to a worker that can: {}",
                        crate::errors::chain(&error)
                    );
                }
                self.dispatcher.discarded(lane);
                self.tracker.spawn(work.refuse(NOT_OURS_PAUSE));
                return;
            }
        };
        let Some(job) = Job::from_ready(&recorded) else {
            self.dispatcher.discarded(lane);
            self.tracker.spawn(work.acknowledge());
            return;
        };
        let room = Room::of(&job.spec.resources);
        let id = job.id;
        if !self.mode.wants_work() {
            self.dispatcher.discarded(lane);
            self.tracker.spawn(work.refuse(NO_ROOM_PAUSE));
            return;
        }
        let now = Instant::now();
        let verdict = self.dispatcher.delivered(lane, room, now);
        let offer = Offer {
            work,
            job,
            ready: recorded.envelope,
        };
        match verdict {
            Verdict::Run => {
                let taken = take(&mut self.running, &self.freed.0, room);
                self.start(offer, Share::Taken(taken));
            }
            Verdict::Hold => {
                let share = self.waiting.enter(room, now);
                self.start(offer, share);
            }
            Verdict::NoRoom => drop(self.tracker.spawn(offer.work.refuse(NO_ROOM_PAUSE))),
            Verdict::TooBig => {
                if offer.work.deliveries() == 1 {
                    warn!(job.id = %id, "job {id} asks for more than this machine has; leaving it to another worker");
                }
                self.tracker.spawn(offer.work.refuse(NOT_OURS_PAUSE));
            }
        }
    }

    /// Makes an attempt of work.
    fn start(&self, offer: Offer, share: Share) {
        let context = Arc::clone(&self.context);
        self.tracker
            .spawn(async move { Box::pin(run::run(context, offer.work, offer.job, offer.ready, share)).await });
    }

    /// Goes on with an attempt that the last runner left to us.
    pub(crate) fn take_up(&mut self, resumed: Resumed) {
        let Resumed { left, writer, entry } = resumed;
        let room = Room::of(&writer.job().spec.resources);
        self.dispatcher.taken_up(room);
        let taken = take(&mut self.running, &self.freed.0, room);
        let context = Arc::clone(&self.context);
        self.tracker
            .spawn(async move { Box::pin(attempt::go_on(context, writer, entry, left, taken)).await });
    }

    /// After a reconnect, reads what was said of us and of our attempts while nobody could tell us.
    fn catch_up(&mut self) {
        if !self.is_caught_up() {
            self.asides.catch_up(&self.context, self.registered, connects(&self.context));
        }
    }

    fn is_caught_up(&self) -> bool {
        self.connects == connects(&self.context)
    }

    /// Takes in what was asked beside the loop; the session's end, if that is what it tells.
    fn answered(&mut self, aside: Aside) -> Option<Ending> {
        match aside {
            Aside::Waiting(lane, messages) => self.dispatcher.waiting(lane, messages),
            Aside::Remade(remade) => self.lanes.remade(remade),
            Aside::CaughtUp(_, Ok((_, Some(ending)))) => return Some(ending),
            Aside::CaughtUp(connects, Ok((cordon, None))) => {
                if !self.asides.is_overtaken() {
                    self.mode.cordoned(cordon);
                }
                self.connects = connects;
            }
            // It is tried again in a moment.
            Aside::CaughtUp(_, Err(why)) => debug!("cannot read yet what was said of {}: {why}", self.context.worker),
        }
        None
    }
}

/// Work that was offered, and what is known of it.
struct Offer {
    work: Work,
    job: Job,
    ready: Envelope<JobEvent>,
}

/// Room that the dispatcher has given, until it is dropped.
fn take(running: &mut usize, freed: &mpsc::UnboundedSender<Freed>, room: Room) -> Taken {
    *running += 1;
    Taken::now(room, freed.clone())
}

fn connects(context: &Context) -> u64 {
    context.js.client().statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
}
