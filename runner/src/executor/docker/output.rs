//! What a container writes, separated again into its two streams.
//!
//! While all is well the bytes come over one attached connection. Where that breaks (the daemon was restarted), and where the
//! container was started by an earlier runner, they come from what the daemon stored, from the byte on that was seen last.

use std::{
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bollard::{container::LogOutput, errors::Error, query_parameters::LogsOptions};
use bytes::Bytes;
use futures::{Stream as FutureStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncWriteExt as _, ReadHalf, SimplexStream, WriteHalf, simplex},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::stored::{Counts, Stored, Stream};

/// How much waits to be read. A slow reader then holds up the container, as a pipe would.
const BUFFER: usize = 64 * 1024;
/// From how many bytes on the time of the first stored message is remembered: before, the daemon cannot have thrown it away.
const REMEMBER: u64 = 1 << 20;
/// The pause before stored output is asked for again.
const PAUSE: Duration = Duration::from_millis(250);

/// An attached connection's output.
pub(super) type Attached = Pin<Box<dyn FutureStream<Item = Result<LogOutput, Error>> + Send>>;

/// How a container stands, as far as its output is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs.
    Runs,
    /// It runs, or not: its daemon was away, and what was attached to it is gone.
    BrokenOff,
    /// It ended; and whether its daemon was ever away.
    Ended { broken_off: bool },
}

/// A container's output, for the task that reads it and for the task that follows the container's state.
pub(super) struct Tap {
    pub(super) standing: watch::Sender<Standing>,
    /// Cancelled to stop reading: the container continues without this runner.
    pub(super) leave: CancellationToken,
    /// When the first message was stored; by it, a log that lost its beginning is known.
    first: Mutex<Option<String>>,
    /// Whether what the daemon stored can still be counted from its beginning.
    pub(super) whole: AtomicBool,
    /// Whether it has all that it is to read: what is still to be sent comes from us.
    pub(super) fed: AtomicBool,
    /// The container's exit code, before its end is told by `standing`.
    pub(super) code: OnceLock<i64>,
    /// What its init process said in place of a program that cannot be executed.
    pub(super) refused: OnceLock<Bytes>,
    /// Cancelled when all of the output was read.
    pub(super) carried: CancellationToken,
}

impl Tap {
    pub(super) fn new(first: Option<String>) -> Self {
        Self {
            standing: watch::channel(Standing::Runs).0,
            leave: CancellationToken::new(),
            first: Mutex::new(first),
            whole: AtomicBool::new(true),
            fed: AtomicBool::new(true),
            code: OnceLock::new(),
            refused: OnceLock::new(),
            carried: CancellationToken::new(),
        }
    }

    /// Takes in when the first message was stored that is still there; tells whether that is not the one that it was.
    fn lost_its_beginning(&self, first: Option<&str>) -> bool {
        let mut known = self.first.lock();
        let lost = known.is_some() && known.as_deref() != first;
        *known = first.map(ToOwned::to_owned);
        if lost {
            self.whole.store(false, Ordering::Relaxed);
        }
        lost
    }

    /// When the first message was stored, if there is one, and it could be learned.
    pub(super) async fn first(&self, client: &bollard::Docker, id: &str) -> Option<String> {
        if let Some(first) = self.first.lock().clone() {
            return Some(first);
        }
        let first = first_stored(client, id).await;
        self.first.lock().clone_from(&first);
        first
    }
}

/// Where output goes: the writing ends of what the attempt reads, and how much went there.
struct Sink {
    stdout: WriteHalf<SimplexStream>,
    stderr: WriteHalf<SimplexStream>,
    written: Counts,
    /// What looks like the init process's word on a program that it cannot execute: with the exit code it is known whether it is.
    held: Vec<u8>,
}

/// How the init process (`docker-init`, which is tini) begins its word on a program that it cannot execute. It says nothing else.
const FATAL: &[u8] = b"[FATAL tini (";
/// The exit codes that it ends with then.
const FATAL_CODES: [i64; 3] = [1, 126, 127];

/// Whether the first that came on standard error may be that word: one line, perhaps not to its end yet.
fn is_fatal(said: &[u8]) -> bool {
    let ends = said.iter().position(|&byte| byte == b'\n');
    said.starts_with(FATAL) && ends.is_none_or(|at| at + 1 == said.len()) && said.len() < BUFFER
}

impl Sink {
    async fn write(&mut self, stream: Stream, bytes: &Bytes) {
        let is_first = self.written.stdout + self.written.stderr == 0;
        *self.written.of(stream) += bytes.len() as u64;
        if stream == Stream::Err && (is_first || !self.held.is_empty()) {
            // It comes in up to three pieces.
            self.held.extend_from_slice(bytes);
            if !is_fatal(&self.held) {
                self.release().await;
            }
            return;
        }
        self.release().await;
        self.pass_on(stream, bytes).await;
    }

    /// Passes on what was held, because a program said it.
    async fn release(&mut self) {
        if !self.held.is_empty() {
            let held = Bytes::from(std::mem::take(&mut self.held));
            self.pass_on(Stream::Err, &held).await;
        }
    }

    async fn pass_on(&mut self, stream: Stream, bytes: &Bytes) {
        let written = match stream {
            Stream::Out => self.stdout.write_all(bytes).await,
            Stream::Err => self.stderr.write_all(bytes).await,
        };
        // A reader that went away is no reason to hold up the container: what is for it is dropped.
        drop(written);
    }
}

/// What is read, and whose.
pub(super) struct Source {
    pub(super) client: bollard::Docker,
    pub(super) id: String,
    pub(super) tap: std::sync::Arc<Tap>,
    /// What was seen of it by an earlier runner.
    pub(super) seen: Counts,
}

/// Separates standard output from standard error. A task of `tasks` carries the bytes until the container is gone. Without an
/// attached connection they come from what the daemon stored.
pub(super) fn separate(
    attached: Option<Attached>,
    source: Source,
    tasks: &TaskTracker,
) -> (ReadHalf<SimplexStream>, ReadHalf<SimplexStream>) {
    let (stdout, stdout_writer) = simplex(BUFFER);
    let (stderr, stderr_writer) = simplex(BUFFER);
    let mut sink = Sink {
        stdout: stdout_writer,
        stderr: stderr_writer,
        written: source.seen,
        held: Vec::new(),
    };
    tasks.spawn(async move {
        let leave = source.tap.leave.clone();
        leave.run_until_cancelled(carry(attached, &source, &mut sink)).await;
        if source.tap.code.get().is_some_and(|code| FATAL_CODES.contains(code)) && !sink.held.is_empty() {
            source.tap.refused.set(std::mem::take(&mut sink.held).into()).ok();
        }
        sink.release().await;
        source.tap.carried.cancel();
        sink.stdout.shutdown().await.ok();
        sink.stderr.shutdown().await.ok();
    });
    (stdout, stderr)
}

async fn carry(attached: Option<Attached>, source: &Source, sink: &mut Sink) {
    let mut standing = source.tap.standing.subscribe();
    if let Some(attached) = attached {
        live(attached, source, sink).await;
        // The connection ends a moment before the container's end is told, or else it broke.
        if matches!(
            standing.wait_for(|standing| *standing != Standing::Runs).await.as_deref(),
            Ok(Standing::Ended { broken_off: false }) | Err(_)
        ) {
            return;
        }
    }
    loop {
        let ended = matches!(*standing.borrow_and_update(), Standing::Ended { .. });
        if let Err(error) = stored(source, sink, !ended).await {
            debug!("the output of container {} cannot be read yet: {error}", source.id);
        }
        if ended {
            return;
        }
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn live(mut output: Attached, source: &Source, sink: &mut Sink) {
    let mut remembered = false;
    while let Some(piece) = output.next().await {
        match piece {
            Ok(LogOutput::StdErr { message }) => sink.write(Stream::Err, &message).await,
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => sink.write(Stream::Out, &message).await,
            Ok(LogOutput::StdIn { .. }) => {}
            Err(error) => {
                debug!("the connection to container {} broke: {error}", source.id);
                return;
            }
        }
        if !remembered && sink.written.stdout + sink.written.stderr > REMEMBER {
            remembered = true;
            source.tap.first(&source.client, &source.id).await;
        }
    }
}

/// Carries what was stored and not seen yet, until the container's end where it is to be followed.
async fn stored(source: &Source, sink: &mut Sink, follow: bool) -> Result<(), Error> {
    let mut stored = Stored::after(sink.written);
    let mut messages = Box::pin(source.client.logs(&source.id, Some(options(follow))));
    let mut checked = false;
    while let Some(message) = messages.next().await {
        let (stream, message) = match message? {
            LogOutput::StdErr { message } => (Stream::Err, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => (Stream::Out, message),
            LogOutput::StdIn { .. } => continue,
        };
        let mut new = stored.take(stream, &message);
        if !std::mem::replace(&mut checked, true) && source.tap.lost_its_beginning(stored.first()) {
            warn!("the daemon threw output of container {} away before it was read", source.id);
            sink.write(Stream::Err, &Bytes::from_static(LOST)).await;
            sink.written = Counts::default();
            stored = Stored::after(sink.written);
            new = stored.take(stream, &message);
        }
        for bytes in new.iter().filter(|bytes| !bytes.is_empty()) {
            sink.write(stream, bytes).await;
        }
    }
    Ok(())
}

/// What a log says where it has a gap.
const LOST: &[u8] = b"rgrid: output may be missing or repeated here: the container wrote more than Docker keeps while nobody read it\n";

fn options(follow: bool) -> LogsOptions {
    LogsOptions {
        follow,
        stdout: true,
        stderr: true,
        timestamps: true,
        ..LogsOptions::default()
    }
}

async fn first_stored(client: &bollard::Docker, id: &str) -> Option<String> {
    let mut messages = Box::pin(client.logs(id, Some(options(false))));
    let message = tokio::time::timeout(Duration::from_secs(5), messages.next()).await.ok()??.ok()?;
    let mut stored = Stored::after(Counts::default());
    stored.take(Stream::Out, &message.into_bytes());
    stored.first().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_line_of_the_init_process_is_taken_for_its_word() {
        let word = "[FATAL tini (7)] exec ./x failed: Not a directory\n";
        assert!(is_fatal(word.as_bytes()) && is_fatal(&word.as_bytes()[..20]));
        assert!(!is_fatal(format!("{word}more").as_bytes()));
        assert!(!is_fatal(b"Traceback\n") && !is_fatal(b""));
    }
}
