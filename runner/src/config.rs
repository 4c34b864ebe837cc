//! A runner's configuration.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bus::{
    grid::secrets::Key,
    ids::{Queue, WorkerId},
};
use store::StoreUrl;

use crate::{
    executor::{Preference, RuntimeTable},
    users::JobUsers,
};

/// A runner's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// URLs of the NATS servers, separated by commas.
    pub nats: String,
    /// Replicas of the streams that the runner creates.
    pub replicas: u8,
    /// The store.
    pub store: StoreUrl,
    /// The worker that this runner serves.
    pub worker: WorkerId,
    /// The queues that it takes work from.
    pub queues: Vec<Queue>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// CPUs that it offers, in thousandths.
    pub cpu_milli: u32,
    /// Memory that it offers, in bytes.
    pub memory_bytes: u64,
    /// Which executor it prefers.
    pub executor: Preference,
    /// Interpreters and images.
    pub runtimes: RuntimeTable,
    /// The directory for workspaces, caches and spooled logs.
    pub work_dir: PathBuf,
    /// Which users jobs run as.
    pub job_users: JobUsers,
    /// Whether plain processes may run although the grid listens beyond this machine.
    pub allow_process: bool,
    /// The period of its heartbeats.
    pub heartbeat: Duration,
    /// How long attempts may continue when the runner is asked to stop.
    pub drain: Duration,
    /// How long a command that is asked to end may take before it is killed, where its job does not say.
    pub grace: Duration,
    /// After how long without an acknowledged heartbeat it ends its own attempts; absent: it does not.
    pub self_fence: Option<Duration>,
    /// How long after the announcement of a restart the next runner may continue its containers.
    pub restart_deadline: Duration,
    /// The key that decrypts the grid's secrets; without it, jobs with secrets fail here.
    pub secrets: Option<Key>,
    /// How many bytes of inputs are kept on disk for the next job that names them; 0 for none.
    pub cache_inputs_bytes: u64,
    /// How many bytes of installed packages are kept on disk while no job uses them.
    pub cache_bytes: u64,
    /// How long the installation of a job's packages may take.
    pub install_timeout: Duration,
    /// Whether installations in containers see this user's credentials and configuration files for package indexes.
    pub install_credentials: bool,
    /// How much of one attempt's log may wait on disk for the store, in bytes.
    pub spool_bytes: u64,
}
