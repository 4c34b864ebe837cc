//! Containers that a runner on this machine, which crashed, left behind.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use bollard::{models::ContainerSummary, query_parameters::ListContainersOptions};
use tracing::warn;

use super::{
    Docker,
    body::{self, MACHINE, NOTE, RUNNER, WORKER},
    container, kept,
};
use crate::executor::{Error, process::proc};

impl Docker {
    /// Kills and removes the containers of this machine's runners that are gone. What a runner that lives executes stays, and what
    /// one that restarts left to its successor; so do those of `kept`. Returns how many there were.
    ///
    /// # Errors
    /// [`Error::Broken`] if the daemon does not list its containers.
    pub async fn sweep(&self, kept: &HashSet<String>) -> Result<usize, Error> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![WORKER.to_owned()])])),
            ..ListContainersOptions::default()
        };
        let containers = self
            .client
            .list_containers(Some(options))
            .await
            .map_err(|error| Error::Broken(format!("Docker did not list its containers: {error}")))?;
        let (worker, machine) = (self.config.worker.to_string(), body::machine());
        let left: Vec<String> = containers
            .into_iter()
            .filter(|container| is_left(container, &worker, &machine))
            .filter_map(|container| container.id)
            .filter(|id| !kept.contains(id))
            .collect();
        for id in &left {
            warn!("removing container {id}, which a runner that is gone left behind");
            container::remove(&self.client, id).await;
        }
        Ok(left.len())
    }
}

/// Whether a container's runner is gone and left it to nobody, as far as can be known here: of this worker, or of another on this
/// very machine.
fn is_left(container: &ContainerSummary, worker: &str, machine: &str) -> bool {
    let label = |name: &str| container.labels.as_ref().and_then(|labels| labels.get(name));
    let Some(runner) = label(RUNNER) else { return false };
    let known = label(MACHINE).is_some_and(|its| its == machine) || label(WORKER).is_some_and(|its| its == worker);
    let lives = runner.parse().is_ok_and(proc::is_alive);
    let id = container.id.as_deref().unwrap_or_default();
    known && !lives && !label(NOTE).is_some_and(|note| kept::is_kept(Path::new(note), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(worker: &str, machine: &str, runner: &str) -> ContainerSummary {
        let labels = [(WORKER, worker), (MACHINE, machine), (RUNNER, runner)];
        ContainerSummary {
            id: Some("c".to_owned()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn only_what_a_dead_runner_of_this_machine_or_worker_left_is_swept() {
        let this = proc::this_process().unwrap().to_string();
        let dead = "1.9999999999";
        let is_left = |container: &ContainerSummary| is_left(container, "w", "here");
        assert!(is_left(&container("w", "here", dead)) && is_left(&container("other", "here", dead)));
        assert!(
            is_left(&container("w", "elsewhere", dead)),
            "our own, from before this start of the machine"
        );
        assert!(!is_left(&container("other", "elsewhere", dead)));
        assert!(!is_left(&container("w", "here", &this)));
        assert!(!is_left(&ContainerSummary::default()));
    }

    #[test]
    fn containers_that_a_restarting_runner_left_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut container = container("other", "here", "1.9999999999");
        let note = dir.path().join("restart.json");
        if let Some(labels) = &mut container.labels {
            labels.insert(NOTE.to_owned(), note.display().to_string());
        }
        assert!(is_left(&container, "w", "here"), "there is no note");
        let write = |deadline: chrono::DateTime<chrono::Utc>| {
            let left = serde_json::json!({
                "worker": "other", "session": bus::ids::SessionId::new(), "deadline": deadline, "last_claim": 0, "boot": "",
                "attempts": [{
                    "job": bus::ids::JobId::new(), "attempt": 1, "root": "/", "laid": [], "begun": deadline,
                    "log": { "segments": [], "stdout_bytes": 0, "stderr_bytes": 0, "live": 0, "piped": { "stdout": 0, "stderr": 0 } },
                    "command": { "container": "c", "first_stored": null, "memory_limited": false },
                }],
            });
            std::fs::write(&note, left.to_string()).unwrap();
        };
        write(chrono::Utc::now() + chrono::TimeDelta::seconds(60));
        assert!(!is_left(&container, "w", "here"));
        write(chrono::Utc::now() - chrono::TimeDelta::seconds(1));
        assert!(is_left(&container, "w", "here"), "nobody came for it");
        kept::note_taken_over(dir.path(), vec!["c".to_owned()]).unwrap();
        assert!(!is_left(&container, "w", "here"), "somebody took it up, and lives");
    }
}
