//! Runs nothing: for `rgrid bench noop`, which measures the log and not the machine.

use std::time::Duration;

use async_trait::async_trait;
use bus::spec::{ExecutorKind, dependencies::Kind};

use super::{Ended, Error, Executor, Exit, Handle, Identity, Launch, Running};

/// Every command succeeds at once, and says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

#[async_trait]
impl Executor for Noop {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Noop
    }

    async fn identity(&self, _: &Launch, _: Kind) -> Result<Identity, Error> {
        Err(Error::Unrunnable(
            "the executor `noop` runs nothing, and needs no packages: leave them out".to_owned(),
        ))
    }

    async fn launch(&self, _: Launch) -> Result<Running, Error> {
        Ok(Running {
            stdout: Box::new(tokio::io::empty()),
            stderr: Box::new(tokio::io::empty()),
            handle: Box::new(Self),
            environment: None,
            packages: None,
        })
    }
}

#[async_trait]
impl Handle for Noop {
    async fn wait(&self) -> Result<Ended, Error> {
        Ok(Ended {
            exit: Exit::Code(0),
            cpu: Some(Duration::ZERO),
            memory_bytes: None,
        })
    }

    async fn terminate(&self) {}

    async fn kill(&self) {}
}
