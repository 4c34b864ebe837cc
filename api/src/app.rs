//! What every request has at hand. None of it is state that would be missed: it is connections, and gauges of what is elsewhere.

use std::sync::Arc;

use bus::{
    grid::{runtimes::RuntimesSet, secrets::PublicKey},
    log::{connect::Bus, room::Gauge, writer::Writer},
    spec::{Refusal, submission::Submission},
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
    storage::Storing,
};

/// What every request has at hand.
#[derive(Debug)]
pub(crate) struct App {
    /// NATS, for the log.
    pub(crate) bus: Bus,
    /// How many servers keep the log.
    pub(crate) replicas: u8,
    /// Decides on commands and appends their events.
    pub(crate) writer: Writer,
    /// The store of contents.
    pub(crate) files: Files,
    /// Contents on their way to it.
    pub(crate) arrivals: Arc<Arrivals>,
    /// What lets clients at the store themselves.
    pub(crate) direct: Direct,
    /// The marks on contents that nothing refers to.
    pub(crate) marks: Marks,
    /// How the store is kept.
    pub(crate) storing: Storing,
    /// Held by who looks at all of the store: each needs memory for all that there is.
    pub(crate) surveying: tokio::sync::Mutex<()>,
    /// The read models.
    pub(crate) tables: Tables,
    /// Who waits for what.
    pub(crate) waiters: Arc<Waiters>,
    /// What attempts print, as it comes.
    pub(crate) tails: Arc<Tails>,
    /// How full the log is.
    pub(crate) fill: Arc<Gauge>,
    /// What the deployment says of runtimes.
    pub(crate) deployed: watch::Sender<Arc<RuntimesSet>>,
    /// Which workers there are, for warnings.
    pub(crate) advice: Arc<Advice>,
    /// The key.
    pub(crate) key: Key,
    /// What secrets are sealed to, if the grid keeps any.
    pub(crate) secrets_key: Option<PublicKey>,
    /// The largest file that may be uploaded, in bytes.
    pub(crate) max_upload_bytes: u64,
    /// Owns what outlives a handler: the producers of streamed answers.
    pub(crate) tasks: TaskTracker,
    /// Ends whatever waits.
    pub(crate) stop: CancellationToken,
}

impl App {
    /// Puts what a submission's alias means in its place.
    ///
    /// # Errors
    /// If that cannot be had with what else it asks for.
    pub(crate) fn resolve(&self, submission: &mut Submission) -> Result<(), Refusal> {
        self.deployed.borrow().resolve(submission)
    }
}

/// The one [`App`].
pub(crate) type Shared = Arc<App>;
