//! Ctrl-C and SIGTERM: what they mean while a job runs, and that they are heard until the program ends.

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

/// How long the signal of a key that was read as an answer may take.
const SAME_KEY: Duration = Duration::from_millis(200);

/// How long the answer to a submission is still waited for after a signal.
const ANSWERED: Duration = Duration::from_secs(2);

/// What the user wants when they interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Let the job go on, and leave.
    Detach,
    /// End the job.
    Cancel,
    /// It was a slip.
    GoOn,
}

/// A signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Heard {
    /// The exit code of a program that ends by this signal: 128 and its number.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl From<Heard> for ExitCode {
    fn from(signal: Heard) -> Self {
        Self::from(signal.code())
    }
}

/// The signals that interrupt. Once this was made, none ends the program by itself any more: whoever makes it must listen until the
/// program ends. A signal that comes while an earlier one is still unheard ends the program at once, whatever it does.
pub(crate) struct Interrupts {
    signals: mpsc::UnboundedReceiver<Heard>,
    unheard: Arc<AtomicUsize>,
    put_back: Option<Heard>,
    detach: bool,
}

impl Interrupts {
    /// Listens from now on. With `detach`, an interrupt detaches without asking.
    ///
    /// # Errors
    /// If that is impossible.
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
                    _ = interrupt.recv() => Heard::Interrupt,
                    _ = terminate.recv() => Heard::Terminate,
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

    /// Learns what the user wants, after a signal. A second signal while the question stands cancels.
    pub(crate) async fn wish(&mut self, signal: Heard) -> Wish {
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
                    let _same = tokio::time::timeout(SAME_KEY, self.heard()).await;
                    Wish::Cancel
                }
            },
            _ = self.heard() => {
                show_cursor();
                Wish::Cancel
            }
        }
    }

    /// Waits for a signal. Loses none when dropped half-way.
    pub(crate) async fn heard(&mut self) -> Heard {
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

    /// Waits for the answer to a submission. A signal leaves it a moment more, and is heard after the answer: what was accepted can
    /// then be cancelled.
    ///
    /// # Errors
    /// The signal, where no answer came.
    pub(crate) async fn await_answer<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, Heard> {
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

    /// Does something unless a signal comes: then it is dropped, and cleans up after itself.
    ///
    /// # Errors
    /// The signal that came.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Heard> {
        tokio::select! {
            biased;
            signal = self.heard() => Err(signal),
            done = work => Ok(done),
        }
    }
}

/// Carries out a verb that a signal stops cleanly: temporary files are removed, and what can be gone on with is kept.
///
/// # Errors
/// As the verb.
pub(crate) async fn interruptible(verb: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    match Interrupts::new(false)?.unless(verb).await {
        Ok(ended) => ended,
        Err(signal) => {
            crate::output::say!("interrupted; the same command again goes on from here");
            Ok(signal.into())
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
