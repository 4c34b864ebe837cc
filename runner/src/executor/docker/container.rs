//! One container, from its start to its removal.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    Docker,
    errors::Error::DockerContainerWaitError,
    query_parameters::{EventsOptions, InspectContainerOptions, KillContainerOptions, RemoveContainerOptions, WaitContainerOptions},
};
use futures::TryStreamExt as _;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::executor::{Ended, Error, Exit, Handle};

/// A container that exists. Dropped, it is removed, whatever it does.
pub(super) struct Container {
    client: Docker,
    id: String,
    tasks: TaskTracker,
    removed: bool,
}

impl Container {
    pub(super) fn new(client: Docker, id: String, tasks: TaskTracker) -> Self {
        Self {
            client,
            id,
            tasks,
            removed: false,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Removes it and waits for that, where another of its name is to come.
    pub(super) async fn remove_now(&mut self) {
        self.removed = true;
        remove(&self.client, &self.id).await;
    }

    async fn signal(&self, signal: &str) {
        let options = KillContainerOptions { signal: signal.to_owned() };
        if let Err(error) = self.client.kill_container(&self.id, Some(options)).await {
            // It ended meanwhile, as a rule.
            debug!("container {} did not take {signal}: {error}", self.id);
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.removed && tokio::runtime::Handle::try_current().is_ok() {
            let (client, id) = (self.client.clone(), std::mem::take(&mut self.id));
            self.tasks.spawn(async move { remove(&client, &id).await });
        }
    }
}

/// Kills and removes a container and its anonymous volumes.
pub(super) async fn remove(client: &Docker, id: &str) {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    match client.remove_container(id, Some(options)).await {
        // 404: it is gone. 409: its removal is on the way.
        Ok(())
        | Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409, ..
        }) => {}
        Err(error) => warn!("container {id} could not be removed: {error}"),
    }
}

/// A container whose end is waited for.
pub(super) struct ContainerHandle {
    container: Container,
    memory_limited: bool,
    asked_to_end: AtomicBool,
    ended: OnceCell<Result<Ended, Error>>,
}

impl ContainerHandle {
    pub(super) fn new(container: Container, memory_limited: bool) -> Self {
        Self {
            container,
            memory_limited,
            asked_to_end: AtomicBool::new(false),
            ended: OnceCell::new(),
        }
    }

    async fn end(&self) -> Result<Ended, Error> {
        let Container { client, id, .. } = &self.container;
        let mut waiting = std::pin::pin!(client.wait_container(id, None::<WaitContainerOptions>));
        let code = match waiting.try_next().await {
            Ok(Some(ended)) => ended.status_code,
            Err(DockerContainerWaitError { code, error }) if error.is_empty() => code,
            Ok(None) => return Err(Error::Broken("Docker stopped to wait for a container".to_owned())),
            Err(error) => return Err(Error::Broken(format!("Docker could not wait for a container: {error}"))),
        };
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
        let inspected = client.inspect_container(id, None::<InspectContainerOptions>).await;
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
