//! Containers that an earlier runner, which crashed, left on this machine.

use std::collections::HashMap;

use bollard::{models::ContainerSummary, query_parameters::ListContainersOptions};
use bus::ids::SessionId;
use tracing::warn;

use super::{
    Docker,
    body::{RUNNER, SESSION, WORKER},
    container,
};
use crate::executor::{Error, process::proc};

impl Docker {
    /// Kills and removes the containers of this worker's earlier sessions whose runner is gone. A runner that lives, as of another
    /// grid whose worker has the same name, keeps its own. Returns how many there were.
    ///
    /// # Errors
    /// [`Error::Broken`] if the daemon does not list its containers.
    pub async fn sweep(&self, session: SessionId) -> Result<usize, Error> {
        let label = format!("{WORKER}={}", self.config.worker);
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        let containers = self
            .client
            .list_containers(Some(options))
            .await
            .map_err(|error| Error::Broken(format!("Docker did not list its containers: {error}")))?;
        let session = session.to_string();
        let left: Vec<String> = containers
            .into_iter()
            .filter(|container| is_left(container, &session))
            .filter_map(|container| container.id)
            .collect();
        for id in &left {
            warn!("removing container {id}, which a runner that is gone left behind");
            container::remove(&self.client, id).await;
        }
        Ok(left.len())
    }
}

fn is_left(container: &ContainerSummary, session: &str) -> bool {
    let label = |name: &str| container.labels.as_ref().and_then(|labels| labels.get(name));
    let runner_lives = label(RUNNER).and_then(|runner| runner.parse().ok()).is_some_and(proc::is_alive);
    label(SESSION).is_some_and(|its| its != session) && !runner_lives
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(session: &str, runner: &str) -> ContainerSummary {
        ContainerSummary {
            labels: Some(HashMap::from([
                (SESSION.to_owned(), session.to_owned()),
                (RUNNER.to_owned(), runner.to_owned()),
            ])),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn only_what_a_dead_runner_s_other_session_left_is_swept() {
        let this = proc::this_process().unwrap().to_string();
        assert!(is_left(&container("old", "1.9999999999"), "new"));
        assert!(!is_left(&container("new", "1.9999999999"), "new"));
        assert!(!is_left(&container("old", &this), "new"));
        assert!(!is_left(&ContainerSummary::default(), "new"));
    }
}
