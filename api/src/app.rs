//! What all requests share: connections, and copies of state that is stored elsewhere. Losing it loses nothing.

use std::sync::Arc;

use bus::{
    grid::{runtimes::RuntimesSet, secrets::PublicKey},
    log::{connect::Bus, room::Gauge, writer::Writer},
    spec::submission::{Refusal, Submission},
};
use store::{Files, marks::Marks};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    events::waiters::Waiters,
    files::{arrivals::Arrivals, direct::Direct},
    jobs::advice::Advice,
    key::Key,
    logs::Tails,
    queries::Tables,
    storage::StorageConfig,
};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    /// The connection to NATS, for the log.
    pub(crate) bus: Bus,
    /// How many servers store the log.
    pub(crate) replicas: u8,
    /// Decides on commands and appends their events.
    pub(crate) writer: Writer,
    /// The store of contents.
    pub(crate) files: Files,
    /// Unfinished uploads.
    pub(crate) arrivals: Arc<Arrivals>,
    /// Presigned URLs for clients that transfer files to and from the store themselves.
    pub(crate) direct: Direct,
    /// The marks on contents that may be removed.
    pub(crate) marks: Marks,
    /// When contents are removed from the store.
    pub(crate) storage_config: StorageConfig,
    /// Held during a survey of the store: each one needs memory for all contents.
    pub(crate) surveying: tokio::sync::Mutex<()>,
    /// The tables in Postgres.
    pub(crate) tables: Tables,
    /// Requests that wait for events.
    pub(crate) waiters: Arc<Waiters>,
    /// The live output of attempts.
    pub(crate) tails: Arc<Tails>,
    /// How full the log is: admits new jobs.
    pub(crate) admission: Arc<Gauge>,
    /// The runtimes that the deployment defines.
    pub(crate) deployed: watch::Sender<Arc<RuntimesSet>>,
    /// The live workers, for warnings about jobs.
    pub(crate) advice: Arc<Advice>,
    /// The API key.
    pub(crate) key: Key,
    /// The public key that secrets are sealed to, if the grid stores secrets.
    pub(crate) secrets_key: Option<PublicKey>,
    /// The largest file that may be uploaded, in bytes.
    pub(crate) max_upload_bytes: u64,
    /// The background tasks and the tasks that stream answers.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the API stops.
    pub(crate) stop: CancellationToken,
}

impl App {
    /// Replaces the runtime alias of a submission by what the alias stands for.
    ///
    /// # Errors
    /// If the alias contradicts another field of the submission.
    pub(crate) fn resolve(&self, submission: &mut Submission) -> Result<(), Refusal> {
        self.deployed.borrow().resolve(submission)
    }
}

/// The [`App`] that all requests share.
pub(crate) type Shared = Arc<App>;
