//! Runtimes that the deployment defines, and those that workers have.

use std::collections::BTreeMap;

use bus::{
    grid::runtimes::{Alias, Meaning},
    ids::{Token, WorkerId},
    worker::Equipment,
};
use serde::{Deserialize, Serialize};

/// The content of the deployment's `runtimes.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Runtimes {
    /// Runtimes that are not built in, or are redefined.
    pub runtimes: BTreeMap<Token, Meaning>,
    /// Other names of runtimes and images.
    pub aliases: BTreeMap<Token, Alias>,
}

/// The runtimes of the live workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimesOfWorkers {
    /// By name.
    pub workers: Vec<RuntimesOfWorker>,
}

/// The runtimes of a live worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimesOfWorker {
    /// Its name.
    pub worker: WorkerId,
    /// Its runtimes; empty until it has reported them.
    pub runtimes: BTreeMap<Token, Equipment>,
    /// Its images by name, each with Docker's id.
    pub images: BTreeMap<String, String>,
    /// The platform of its containers (`linux/amd64`); absent: it runs none.
    pub platform: Option<String>,
    /// Whether it runs plain processes.
    pub process: bool,
}
