//! What a session asks of NATS beside its loop: no answer that is late holds up what the loop does.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{log::read, worker::Cordoned};
use tokio::task::JoinSet;

use crate::{
    attempt::context::Context,
    session::{
        control,
        ending::Ending,
        queues::{Lanes, Remade},
    },
};

/// The pause after which what could not be read is read again.
const AGAIN: Duration = Duration::from_millis(500);

/// An answer.
pub(crate) enum Aside {
    /// So much work waits in a lane.
    Waiting(usize, u64),
    /// What was said while the connection was not there: the worker's cordon, and the session's end, if it is over. With how often the
    /// connection had been made when that was asked.
    CaughtUp(u64, Result<(Option<Cordoned>, Option<Ending>), read::Error>),
    /// The lanes that were broken, made anew or not.
    Remade(Remade),
}

/// What is asked, and was not answered yet.
pub(crate) struct Asides {
    under_way: JoinSet<Aside>,
    /// The lanes of which it is asked what waits in them.
    looked_up: BTreeSet<usize>,
    catching_up: bool,
    /// Whether an operator's word came meanwhile: that is the newer one.
    overtaken: bool,
    /// When what was said meanwhile may be read again.
    not_before: Instant,
}

impl Asides {
    /// Nothing is asked.
    pub(crate) fn new() -> Self {
        Self {
            under_way: JoinSet::new(),
            looked_up: BTreeSet::new(),
            catching_up: false,
            overtaken: false,
            not_before: Instant::now(),
        }
    }

    /// Asks how much work waits in a lane, unless that is being asked.
    pub(crate) fn look_up(&mut self, lanes: &Lanes, lane: usize) {
        if self.looked_up.insert(lane) {
            let pending = lanes.pending(lane);
            self.under_way.spawn(async move { Aside::Waiting(lane, pending.await) });
        }
    }

    /// Reads what was said of a session since its registration, unless that is being read or could not be a moment ago.
    pub(crate) fn catch_up(&mut self, context: &Arc<Context>, registered: u64, connects: u64) {
        if self.catching_up || self.not_before > Instant::now() {
            return;
        }
        self.catching_up = true;
        self.overtaken = false;
        let context = Arc::clone(context);
        self.under_way
            .spawn(async move { Aside::CaughtUp(connects, control::catch_up(&context, registered).await) });
    }

    /// Takes note that an operator's word came over the connection.
    pub(crate) const fn overtake(&mut self) {
        self.overtaken = true;
    }

    /// Whether one came since the last reading of what was said before.
    pub(crate) const fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    /// Makes broken lanes again, now and then.
    ///
    /// # Errors
    /// In words, where that was tried for long enough; or where the session is idle, and a new one costs nothing.
    pub(crate) fn mend(&mut self, lanes: &mut Lanes, idle: bool) -> Result<(), String> {
        if let Some(remade) = lanes.mend(idle)? {
            self.under_way.spawn(async move { Aside::Remade(remade.await) });
        }
        Ok(())
    }

    /// The next answer; never, where nothing is asked. Loses nothing when dropped half-way.
    pub(crate) async fn next(&mut self) -> Aside {
        loop {
            match self.under_way.join_next().await {
                None => std::future::pending().await,
                // Nobody stops one but with all of them.
                Some(Err(_)) => {}
                Some(Ok(aside)) => {
                    match &aside {
                        Aside::Waiting(lane, _) => drop(self.looked_up.remove(lane)),
                        Aside::CaughtUp(_, told) => {
                            self.catching_up = false;
                            if told.is_err() {
                                self.not_before = Instant::now() + AGAIN;
                            }
                        }
                        Aside::Remade(_) => {}
                    }
                    return aside;
                }
            }
        }
    }
}
