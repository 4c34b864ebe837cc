//! The runner's hold on one plain process.

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf, process::ExitStatus, sync::Arc, time::Duration};

use async_trait::async_trait;
use rustix::{io::Errno, process::Signal};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{
    ending::{End, Ending},
    limits::Guard,
    link::Link,
    program::Programs,
};
use crate::executor::{
    Ended, Error, Exit, Handle,
    missing::{self, HERE},
};

/// A command that was asked for, to be waited for and ended.
pub(super) struct ProcessHandle {
    pub(super) id: u64,
    pub(super) link: Arc<Link>,
    pub(super) ending: Arc<Ending>,
    pub(super) guard: Option<Guard>,
    pub(super) program: PathBuf,
    pub(super) programs: Arc<Programs>,
    pub(super) work_dir: PathBuf,
    pub(super) tasks: TaskTracker,
}

#[async_trait]
impl Handle for ProcessHandle {
    async fn wait(&self) -> Result<Ended, Error> {
        match self.ending.wait().await {
            End::Ended {
                status,
                cpu_micros,
                memory_bytes,
            } => {
                let exit = exit(*status);
                Ok(Ended {
                    exit: self.guard.as_ref().map_or(exit, |guard| guard.judge(exit, &self.tasks)),
                    cpu: Some(Duration::from_micros(*cpu_micros)),
                    memory_bytes: Some(*memory_bytes),
                })
            }
            End::NotStarted(errno) => {
                self.programs.forget(&self.program);
                Err(missing::not_started(
                    &self.program,
                    &self.work_dir,
                    HERE,
                    Errno::from_raw_os_error(*errno),
                ))
            }
            End::Lost(sentence) => Err(Error::Broken(sentence.clone())),
        }
    }

    async fn terminate(&self) {
        self.link.signal(self.id, Signal::TERM.as_raw()).await;
    }

    async fn kill(&self) {
        self.link.signal(self.id, Signal::KILL.as_raw()).await;
    }
}

impl Drop for ProcessHandle {
    /// What nobody waits for is ended, and its group removed.
    fn drop(&mut self) {
        if let Some(group) = self.guard.as_ref().and_then(Guard::take_group)
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let ending = Arc::clone(&self.ending);
            self.tasks.spawn(async move {
                ending.wait().await;
                group.remove().await;
            });
        }
        if self.ending.get().is_none() && !self.link.try_signal(self.id, Signal::KILL.as_raw()) && !self.link.is_broken() {
            warn!("an abandoned command could not be killed: the spawn helper does not answer");
        }
    }
}

fn exit(status: i32) -> Exit {
    let status = ExitStatus::from_raw(status);
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}
