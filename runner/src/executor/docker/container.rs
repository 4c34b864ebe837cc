//! One container, from its start to its removal.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bollard::{
    Docker,
    errors::Error::{self as DockerError, DockerContainerWaitError, DockerResponseServerError},
    query_parameters::{EventsOptions, InspectContainerOptions, KillContainerOptions, RemoveContainerOptions, WaitContainerOptions},
};
use futures::TryStreamExt as _;
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{
    output::{Standing, Tap},
    program::Program,
};
use crate::executor::{Ended, Error, Exit, Handle, Left};

/// The first and the longest pause before a daemon that is away is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// For how long a daemon that is away is waited for.
const OUTAGE: Duration = Duration::from_secs(600);
/// How long the init process's word on a program is waited for.
const SAID: Duration = Duration::from_secs(2);
/// How long a signal is waited for. A daemon that does not answer gets it when it does.
const SIGNALLED: Duration = Duration::from_secs(5);

/// A container that exists. Dropped, it is removed, whatever it does, unless it was left.
pub(super) struct Container {
    client: Docker,
    id: String,
    tasks: TaskTracker,
    kept: AtomicBool,
}

impl Container {
    pub(super) fn new(client: Docker, id: String, tasks: TaskTracker) -> Self {
        Self {
            client,
            id,
            tasks,
            kept: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Removes it and waits for that, where another of its name is to come.
    pub(super) async fn remove_now(&self) {
        self.kept.store(true, Ordering::Release);
        remove(&self.client, &self.id).await;
    }

    /// Sends a signal, and waits a while for that; it is sent also if that takes longer.
    async fn signal(&self, signal: &'static str) {
        let (client, id) = (self.client.clone(), self.id.clone());
        let send = async move {
            let options = || Some(KillContainerOptions { signal: signal.to_owned() });
            let sent = insist(|| client.kill_container(&id, options())).await;
            if let Err(error) = sent {
                // It ended meanwhile, as a rule.
                debug!("container {id} could not be sent {signal}: {error}");
            }
        };
        // Detached, it goes on.
        drop(timeout(SIGNALLED, self.tasks.spawn(send)).await);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) && tokio::runtime::Handle::try_current().is_ok() {
            let (client, id) = (self.client.clone(), std::mem::take(&mut self.id));
            self.tasks.spawn(async move { remove(&client, &id).await });
        }
    }
}

/// Kills and removes a container and its anonymous volumes.
pub(super) async fn remove(client: &Docker, id: &str) {
    let options = || RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    match insist(|| client.remove_container(id, Some(options()))).await {
        // 404: it is gone. 409: its removal is on the way.
        Ok(())
        | Err(DockerResponseServerError {
            status_code: 404 | 409, ..
        }) => {}
        Err(error) => warn!("container {id} could not be removed: {error}; the next start of a runner does it"),
    }
}

/// Whether the daemon did not answer at all.
fn is_away(error: &DockerError) -> bool {
    !matches!(error, DockerResponseServerError { .. } | DockerContainerWaitError { .. })
}

/// Asks a daemon that is away again and again.
pub(super) async fn insist<T, F: Future<Output = Result<T, DockerError>>>(ask: impl Fn() -> F) -> Result<T, DockerError> {
    let (begun, mut pause) = (Instant::now(), PAUSE.0);
    loop {
        match ask().await {
            Err(error) if is_away(&error) && begun.elapsed() < OUTAGE => sleep(pause).await,
            answer => return answer,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// A container whose end is waited for.
pub(super) struct ContainerHandle {
    container: Container,
    tap: Arc<Tap>,
    memory_limited: bool,
    program: Program,
    asked_to_end: AtomicBool,
    ended: OnceCell<Result<Ended, Error>>,
}

impl ContainerHandle {
    pub(super) fn new(container: Container, tap: Arc<Tap>, memory_limited: bool, program: Program) -> Self {
        Self {
            container,
            tap,
            memory_limited,
            program,
            asked_to_end: AtomicBool::new(false),
            ended: OnceCell::new(),
        }
    }

    async fn end(&self) -> Result<Ended, Error> {
        let (code, broken_off) = self.code().await;
        if let Ok(code) = code {
            self.tap.code.set(code).ok();
        }
        self.tap.standing.send_replace(Standing::Ended { broken_off });
        let code = code?;
        // What a daemon that comes back does to the containers that it finds running, unless told to let them live.
        if broken_off && matches!(code, 137 | 255) && !self.asked_to_end.load(Ordering::Acquire) {
            return Err(Error::Broken(format!(
                "the Docker daemon went away while the container ran, and the container ended with it (exit code {code}); \
                 with `live-restore` in the daemon's configuration, containers outlive it"
            )));
        }
        if matches!(code, 1 | 126 | 127) {
            // Its own word comes by another way than its exit code.
            let _carried = timeout(SAID, self.tap.carried.cancelled()).await;
            if let Some(said) = self.tap.refused.get() {
                return Err(self.program.refused(&String::from_utf8_lossy(said)));
            }
        }
        let exit = if code != 0 && self.ran_out_of_memory().await {
            Exit::OutOfMemory
        } else {
            exit(code)
        };
        Ok(Ended {
            exit,
            cpu: None,
            memory_bytes: None,
        })
    }

    /// The exit code, and whether the daemon was away meanwhile. One that is away is waited for: the container may live.
    async fn code(&self) -> (Result<i64, Error>, bool) {
        let Container { client, id, .. } = &self.container;
        let (mut away_since, mut broken_off, mut pause) = (None, false, PAUSE.0);
        loop {
            let mut waiting = std::pin::pin!(client.wait_container(id, None::<WaitContainerOptions>));
            let why = match waiting.try_next().await {
                Ok(Some(ended)) => return (Ok(ended.status_code), broken_off),
                Err(DockerContainerWaitError { code, error }) if error.is_empty() => return (Ok(code), broken_off),
                Err(error) if !is_away(&error) => {
                    let error = Error::Broken(format!("Docker could not wait for a container: {error}"));
                    return (Err(error), broken_off);
                }
                Err(error) => error.to_string(),
                Ok(None) => "the connection closed".to_owned(),
            };
            if !std::mem::replace(&mut broken_off, true) {
                warn!("the Docker daemon does not answer ({why}); waiting for it, and for container {id}");
                self.tap.standing.send_replace(Standing::BrokenOff);
            }
            let since = *away_since.get_or_insert_with(Instant::now);
            if since.elapsed() > OUTAGE {
                let error = Error::Broken(format!(
                    "the Docker daemon was away for {} s while the container ran: {why}",
                    OUTAGE.as_secs()
                ));
                return (Err(error), broken_off);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            if client.ping().await.is_ok() {
                away_since = None;
            }
        }
    }

    /// Whether the kernel killed a process of the container for its memory.
    ///
    /// The daemon hears of that and of the end on two ways. As a rule the first comes tens of milliseconds earlier; when it comes
    /// later, older daemons never put it into the container's state, but they do tell it as an event.
    async fn ran_out_of_memory(&self) -> bool {
        const PATIENCE: u32 = 10;
        let limited = self.memory_limited && !self.asked_to_end.load(Ordering::Acquire);
        for _ in 0..if limited { PATIENCE } else { 1 } {
            if self.state_says_out_of_memory().await || limited && self.event_says_out_of_memory().await {
                return true;
            }
            if limited {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        false
    }

    async fn state_says_out_of_memory(&self) -> bool {
        let Container { client, id, .. } = &self.container;
        let inspected = insist(|| client.inspect_container(id, None::<InspectContainerOptions>)).await;
        inspected.is_ok_and(|inspected| inspected.state.and_then(|state| state.oom_killed) == Some(true))
    }

    async fn event_says_out_of_memory(&self) -> bool {
        let Container { client, id, .. } = &self.container;
        let now = chrono::Utc::now();
        let options = EventsOptions {
            since: Some("0".to_owned()),
            // Seconds and nanoseconds. With it, the daemon tells what there was, and ends.
            until: Some(format!("{}.{:09}", now.timestamp(), now.timestamp_subsec_nanos())),
            filters: Some(HashMap::from([
                ("container".to_owned(), vec![id.clone()]),
                ("event".to_owned(), vec!["oom".to_owned()]),
            ])),
        };
        let events = std::pin::pin!(client.events(Some(options))).try_next().await;
        matches!(events, Ok(Some(_)))
    }
}

#[async_trait]
impl Handle for ContainerHandle {
    async fn wait(&self) -> Result<Ended, Error> {
        self.ended.get_or_init(|| self.end()).await.clone()
    }

    async fn terminate(&self) {
        self.asked_to_end.store(true, Ordering::Release);
        self.container.signal("SIGTERM").await;
    }

    async fn kill(&self) {
        self.asked_to_end.store(true, Ordering::Release);
        self.container.signal("SIGKILL").await;
    }

    fn outputs_after(&self) -> Duration {
        // They end with the container. What its daemon stored may still be on the way.
        Duration::from_secs(120)
    }

    fn can_be_left(&self) -> bool {
        let whole = self.tap.whole.load(Ordering::Relaxed) && self.tap.fed.load(Ordering::Acquire);
        whole && self.ended.get().is_none() && *self.tap.standing.borrow() == Standing::Runs
    }

    async fn leave(&self) -> Option<Left> {
        let Container { client, id, kept, .. } = &self.container;
        let first = self.tap.first(client, id).await;
        kept.store(true, Ordering::Release);
        self.tap.leave.cancel();
        Some(Left {
            container: id.clone(),
            first_stored: first,
            memory_limited: self.memory_limited,
        })
    }
}

impl Drop for ContainerHandle {
    /// What nobody waits for is not read either.
    fn drop(&mut self) {
        self.tap.leave.cancel();
    }
}

/// The daemon tells a signal as 128 and its number. Those that programs do not choose as exit codes are told apart again.
fn exit(code: i64) -> Exit {
    use rustix::process::Signal;
    const DEADLY: [Signal; 9] = [
        Signal::ILL,
        Signal::TRAP,
        Signal::ABORT,
        Signal::BUS,
        Signal::FPE,
        Signal::KILL,
        Signal::SEGV,
        Signal::TERM,
        Signal::SYS,
    ];
    let code = i32::try_from(code).unwrap_or(-1);
    match DEADLY.into_iter().find(|signal| signal.as_raw() + 128 == code) {
        Some(signal) => Exit::Signal(signal.as_raw()),
        None => Exit::Code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadly_signal_is_told_apart_from_an_exit_code() {
        assert_eq!(exit(137), Exit::Signal(9));
        assert_eq!(exit(139), Exit::Signal(11));
        assert_eq!(exit(130), Exit::Code(130));
        assert_eq!(exit(3), Exit::Code(3));
    }
}
