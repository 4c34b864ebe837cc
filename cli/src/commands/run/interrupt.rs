//! Ctrl-C while a job runs: detach or cancel.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::Context as _;
use dialoguer::Select;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the signal of a key that was read as an answer may take.
const SAME_KEY: Duration = Duration::from_millis(200);

/// What the user wants when they interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Let the job go on, and leave.
    Detach,
    /// End the job.
    Cancel,
    /// It was a slip.
    GoOn,
}

/// A signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// The signals that interrupt.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    detach: bool,
}

impl Interrupts {
    /// Listens from now on. With `detach`, an interrupt detaches without asking.
    pub(super) fn new(detach: bool) -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            detach,
        })
    }

    /// Learns what the user wants, after a signal. A second signal while the question stands cancels.
    pub(super) async fn wish(&mut self, signal: Heard) -> Wish {
        if self.detach {
            return Wish::Detach;
        }
        if signal == Heard::Terminate || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Wish::Cancel;
        }
        let mut question = tokio::task::spawn_blocking(ask);
        tokio::select! {
            answer = &mut question => match answer {
                Ok(Some(wish)) => wish,
                Ok(None) | Err(_) => {
                    // Ctrl-C as an answer comes as a signal too. It was meant once, and must not pass for a second one, which
                    // leaves without waiting for the cancellation.
                    let _same = tokio::time::timeout(SAME_KEY, self.interrupt.recv()).await;
                    Wish::Cancel
                }
            },
            _ = self.heard() => {
                show_cursor();
                Wish::Cancel
            }
        }
    }

    /// Waits for a signal.
    pub(super) async fn heard(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupt.recv() => Heard::Interrupt,
            _ = self.terminate.recv() => Heard::Terminate,
        }
    }
}

/// Asks on the terminal; nothing where the question was interrupted.
fn ask() -> Option<Wish> {
    let answer = Select::new()
        .with_prompt("The job is not done")
        .items([
            "detach: it goes on, and its outputs stay in the store",
            "cancel: end it",
            "keep waiting",
        ])
        .default(0)
        .interact_opt();
    match answer {
        Ok(Some(0)) => Some(Wish::Detach),
        Ok(Some(2) | None) => Some(Wish::GoOn),
        Ok(Some(_)) => Some(Wish::Cancel),
        Err(_) => None,
    }
}

/// The question hides the cursor while it stands.
fn show_cursor() {
    let _ = dialoguer::console::Term::stderr().show_cursor();
}
