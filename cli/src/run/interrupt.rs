//! Handling of Ctrl-C and SIGTERM while a job runs.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use dialoguer::Select;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::task::TaskTracker;

/// How long to wait for the signal that belongs to a Ctrl-C key that a prompt has read.
const SAME_KEY: Duration = Duration::from_millis(200);

/// How long to wait for the response to a submission after a signal.
const ANSWERED: Duration = Duration::from_secs(2);

/// What the user chose after an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InterruptChoice {
    /// Leave the job running, and exit.
    Detach,
    /// Cancel the job.
    Cancel,
    /// Continue to wait.
    GoOn,
}

/// A signal that stops rgrid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl StopSignal {
    /// The exit code of a program that this signal ends: 128 + its number.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl From<StopSignal> for ExitCode {
    fn from(signal: StopSignal) -> Self {
        Self::from(signal.code())
    }
}

/// The interrupting signals. While this value exists, they do not end the program by themselves: its owner must wait for them until the
/// program ends. A second signal that arrives before the first was handled ends the program immediately.
pub(crate) struct Interrupts {
    signals: mpsc::UnboundedReceiver<StopSignal>,
    unheard: Arc<AtomicUsize>,
    put_back: Option<StopSignal>,
    detach: bool,
}

impl Interrupts {
    /// Installs the handlers. With `detach`, an interrupt detaches without a prompt.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub(crate) fn new(detach: bool) -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let (sender, signals) = mpsc::unbounded_channel();
        let unheard = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&unheard);
        // A task of its own, on a thread of its own: what holds up the program does not hold up its end.
        TaskTracker::new().spawn(async move {
            loop {
                let heard = tokio::select! {
                    _ = interrupt.recv() => StopSignal::Interrupt,
                    _ = terminate.recv() => StopSignal::Terminate,
                };
                if waiting.fetch_add(1, Ordering::SeqCst) > 0 || sender.send(heard).is_err() {
                    show_cursor();
                    std::process::exit(i32::from(heard.code()));
                }
            }
        });
        Ok(Self {
            signals,
            unheard,
            put_back: None,
            detach,
        })
    }

    /// Asks the user what to do after a signal. A second signal during the prompt cancels the job.
    pub(crate) async fn wish(&mut self, signal: StopSignal) -> InterruptChoice {
        if self.detach {
            return InterruptChoice::Detach;
        }
        if signal == StopSignal::Terminate || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return InterruptChoice::Cancel;
        }
        let mut question = tokio::task::spawn_blocking(ask);
        tokio::select! {
            answer = &mut question => match answer {
                Ok(Some(wish)) => wish,
                Ok(None) | Err(_) => {
                    // Ctrl-C as an answer comes as a signal too. It was meant once, and must not pass for a second one, which
                    // leaves without waiting for the cancellation.
                    let _same = tokio::time::timeout(SAME_KEY, self.heard()).await;
                    InterruptChoice::Cancel
                }
            },
            _ = self.heard() => {
                show_cursor();
                InterruptChoice::Cancel
            }
        }
    }

    /// Waits for a signal. Cancel-safe: dropping the future loses no signal.
    pub(crate) async fn heard(&mut self) -> StopSignal {
        if let Some(signal) = self.put_back.take() {
            return signal;
        }
        match self.signals.recv().await {
            Some(signal) => {
                self.unheard.fetch_sub(1, Ordering::SeqCst);
                signal
            }
            // The task that listens lives as long as the program.
            None => std::future::pending().await,
        }
    }

    /// Waits for the response to a submission. After a signal it waits a little longer, so that an accepted job can be cancelled.
    ///
    /// # Errors
    /// The signal, if no response arrived.
    pub(crate) async fn await_answer<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, StopSignal> {
        tokio::pin!(answer);
        let signal = tokio::select! {
            biased;
            answered = &mut answer => return Ok(answered),
            signal = self.heard() => signal,
        };
        tokio::select! {
            biased;
            answered = &mut answer => {
                self.put_back = Some(signal);
                Ok(answered)
            }
            second = self.heard() => Err(second),
            () = tokio::time::sleep(ANSWERED) => Err(signal),
        }
    }

    /// Runs a future unless a signal arrives; the future is dropped then, and cleans up after itself.
    ///
    /// # Errors
    /// The signal that arrived.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, StopSignal> {
        tokio::select! {
            biased;
            signal = self.heard() => Err(signal),
            done = work => Ok(done),
        }
    }
}

/// Runs a command that a signal stops cleanly: temporary files are removed, and resumable transfers are kept.
///
/// # Errors
/// The errors of the command.
pub(crate) async fn interruptible(verb: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    match Interrupts::new(false)?.unless(verb).await {
        Ok(ended) => ended,
        Err(signal) => {
            crate::output::say!("interrupted; run the same command again to continue");
            Ok(signal.into())
        }
    }
}

/// Asks on the terminal. `None` if the prompt was interrupted.
fn ask() -> Option<InterruptChoice> {
    let answer = Select::new()
        .with_prompt("The job has not ended")
        .items([
            "detach: the job continues, and its outputs are stored on the grid",
            "cancel the job",
            "keep waiting",
        ])
        .default(0)
        .interact_opt();
    match answer {
        Ok(Some(0)) => Some(InterruptChoice::Detach),
        Ok(Some(2) | None) => Some(InterruptChoice::GoOn),
        Ok(Some(_)) => Some(InterruptChoice::Cancel),
        Err(_) => None,
    }
}

/// Shows the cursor again, which the prompt hides.
fn show_cursor() {
    let _ = dialoguer::console::Term::stderr().show_cursor();
}
