//! The executors of a machine: found at the start, cleaned up at the end.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tracing::warn;

use crate::{
    config::Config,
    executor::{Docker, Executors, Noop, Preference, Process, Runtimes, docker, process},
    restart::note,
};

/// The machine has no executor.
#[derive(Debug, thiserror::Error)]
#[error("this worker can run nothing: no containers, because {docker}; no plain processes, because {process}")]
pub struct Error {
    docker: String,
    process: String,
}

/// How often the runner tries to connect to a Docker daemon that it needs.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Finds the executors: connects to Docker, starts the spawn helper. Where the last runner left containers until a deadline, the runner
/// waits until then for a daemon that does not answer.
pub(crate) async fn connect(config: &Config, left_until: Option<DateTime<Utc>>) -> Result<Executors, Error> {
    let runtimes = Runtimes::from(config.runtimes.clone());
    let docker = match config.executor {
        Preference::Process => Err("it was started with `--executor process`".to_owned()),
        Preference::Auto | Preference::Docker => {
            let docker = docker::Config {
                note: Some(config.work_dir.join(note::FILE)),
                ..docker::Config::new(config.worker.clone(), runtimes.clone())
            };
            loop {
                match Docker::connect(docker.clone()).await {
                    Err(_) if left_until.is_some_and(|until| Utc::now() < until) => tokio::time::sleep(ASK_AGAIN).await,
                    connected => break connected.map_err(|error| error.to_string()),
                }
            }
        }
    };
    let process = if config.executor == Preference::Docker {
        Err("it was started with `--executor docker`".to_owned())
    } else if !config.allow_process && !is_local(&config.nats) {
        Err("the grid reaches beyond this machine, and the runner was not started with `--allow-process`".to_owned())
    } else {
        Process::start(process::Config::new(config.worker.clone(), runtimes.clone()))
            .await
            .map_err(|error| error.to_string())
    };
    match (docker, process) {
        (Err(docker), Err(process)) => Err(Error { docker, process }),
        (docker, process) => Ok(Executors {
            preference: config.executor,
            docker,
            process,
            noop: Noop,
            runtimes,
        }),
    }
}

/// How often the runner looks for containers whose runner is gone.
const SWEEP: Duration = Duration::from_secs(15);

/// Keeps the containers' packet filter in place, and removes the containers of other runners on this machine that are gone and left them to
/// no successor. The containers in `kept` belong to this runner.
pub(crate) async fn sweep(executors: Arc<Executors>, kept: HashSet<String>) {
    let Ok(docker) = &executors.docker else { return };
    let mut warned = false;
    loop {
        docker.keep_guarded().await;
        match docker.sweep(&kept).await {
            Ok(_) => warned = false,
            Err(error) if !std::mem::replace(&mut warned, true) => warn!("cannot look for containers that were left behind: {error}"),
            Err(_) => {}
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Ends the helper, and waits for the removal of containers.
pub(crate) async fn close(executors: &Executors, grace: Duration) {
    let docker = async {
        match &executors.docker {
            Ok(docker) => docker.close(grace).await,
            Err(_) => true,
        }
    };
    let process = async {
        match &executors.process {
            Ok(process) => process.close(grace).await,
            Err(_) => true,
        }
    };
    if tokio::join!(docker, process) != (true, true) {
        warn!("some processes or containers could not be cleaned up; the next start of this worker removes them");
    }
}

/// Whether every server is on this machine, as far as their addresses tell.
fn is_local(nats: &str) -> bool {
    nats.split(',').all(|url| {
        let host = url
            .trim()
            .parse::<async_nats::ServerAddr>()
            .map(|address| address.host().to_owned());
        host.is_ok_and(|host| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn a_local_grid_is_distinguished_from_a_remote_one() {
        assert!(is_local("nats://127.0.0.1:4222"));
        assert!(is_local("nats://user:secret@localhost:4222, nats://[::1]:4223"));
        assert!(!is_local("nats://127.0.0.1:4222,nats://10.0.0.7:4222"));
        assert!(!is_local("nats://nats.example.org"));
    }
}
