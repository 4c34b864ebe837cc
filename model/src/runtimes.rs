//! Runtimes: what the deployment says of them, and what workers have.

use std::collections::BTreeMap;

use bus::{
    grid::runtimes::{Alias, RuntimeDefinition},
    ids::{Token, WorkerId},
    worker::Equipment,
};
use serde::{Deserialize, Serialize};

/// What the deployment's `runtimes.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Runtimes {
    /// Runtimes that are not built in, or mean something else here.
    pub runtimes: BTreeMap<Token, RuntimeDefinition>,
    /// Other names of runtimes and images.
    pub aliases: BTreeMap<Token, Alias>,
}

/// What is known of the live workers' runtimes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimesOfWorkers {
    /// By name.
    pub workers: Vec<RuntimesOfWorker>,
}

/// What a live worker can run scripts by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimesOfWorker {
    /// Its name.
    pub worker: WorkerId,
    /// The runtimes that it knows; nothing until it has said so.
    pub runtimes: BTreeMap<Token, Equipment>,
    /// The images that it has, by name, each with Docker's own id.
    pub images: BTreeMap<String, String>,
    /// What its containers run on (`linux/amd64`); absent: it runs none.
    pub platform: Option<String>,
    /// Whether it runs plain processes.
    pub process: bool,
}
