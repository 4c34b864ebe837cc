//! Questions that a session asks NATS in the background, so that a late answer does not delay its loop.

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
        queues::{Recreated, WorkQueues},
    },
};

/// The pause before events that could not be read are read again.
const AGAIN: Duration = Duration::from_millis(500);

/// An answer to a background question.
pub(crate) enum Answer {
    /// How many jobs wait in a work queue.
    WorkWaiting(usize, u64),
    /// After a reconnect: the worker's cordon, and how the session ended, if it did. With how often the connection had been
    /// established when the log was read.
    CaughtUp(u64, Result<(Option<Cordoned>, Option<Ending>), read::Error>),
    /// The work queues, created again after they broke; or why they could not be.
    Recreated(Recreated),
}

/// The questions that are not answered yet.
pub(crate) struct Background {
    under_way: JoinSet<Answer>,
    /// The work queues whose waiting jobs are being counted.
    counting: BTreeSet<usize>,
    catching_up: bool,
    /// Whether a control signal brought a newer cordon meanwhile.
    newer_cordon: bool,
    /// When the log may be read again.
    not_before: Instant,
}

impl Background {
    /// No questions.
    pub(crate) fn new() -> Self {
        Self {
            under_way: JoinSet::new(),
            counting: BTreeSet::new(),
            catching_up: false,
            newer_cordon: false,
            not_before: Instant::now(),
        }
    }

    /// Asks how many jobs wait in a work queue, unless that is being asked.
    pub(crate) fn count_waiting(&mut self, work_queues: &WorkQueues, work_queue: usize) {
        if self.counting.insert(work_queue) {
            let pending = work_queues.pending(work_queue);
            self.under_way.spawn(async move { Answer::WorkWaiting(work_queue, pending.await) });
        }
    }

    /// Reads the events since the session's registration, unless they are being read or could not be read a moment ago.
    pub(crate) fn catch_up(&mut self, context: &Arc<Context>, registered: u64, connects: u64) {
        if self.catching_up || self.not_before > Instant::now() {
            return;
        }
        self.catching_up = true;
        self.newer_cordon = false;
        let context = Arc::clone(context);
        self.under_way
            .spawn(async move { Answer::CaughtUp(connects, control::catch_up(&context, registered).await) });
    }

    /// Notes that a control signal brought a cordon.
    pub(crate) const fn note_newer_cordon(&mut self) {
        self.newer_cordon = true;
    }

    /// Whether a control signal brought a cordon since the log was read.
    pub(crate) const fn has_newer_cordon(&self) -> bool {
        self.newer_cordon
    }

    /// Creates broken work queues again, with pauses between the tries.
    ///
    /// # Errors
    /// The reason, where that was tried for long enough, or where the session is idle, so that a new session costs nothing.
    pub(crate) fn recreate(&mut self, work_queues: &mut WorkQueues, idle: bool) -> Result<(), String> {
        if let Some(recreated) = work_queues.recreate(idle)? {
            self.under_way.spawn(async move { Answer::Recreated(recreated.await) });
        }
        Ok(())
    }

    /// The next answer; pends while there is no question. Loses nothing when dropped half-way.
    pub(crate) async fn next(&mut self) -> Answer {
        loop {
            match self.under_way.join_next().await {
                None => std::future::pending().await,
                // A question is aborted only together with all others.
                Some(Err(_)) => {}
                Some(Ok(answer)) => {
                    match &answer {
                        Answer::WorkWaiting(work_queue, _) => drop(self.counting.remove(work_queue)),
                        Answer::CaughtUp(_, told) => {
                            self.catching_up = false;
                            if told.is_err() {
                                self.not_before = Instant::now() + AGAIN;
                            }
                        }
                        Answer::Recreated(_) => {}
                    }
                    return answer;
                }
            }
        }
    }
}
