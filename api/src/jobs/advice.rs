//! What a user should know of a job that was accepted: that nobody serves its queue, or that it fits no worker.
//!
//! From a copy of the workers' table that is a few seconds old at most. No submission ever waits for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus::spec::{ExecutorKind, JobSpec};
use model::{WorkerState, WorkerView};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{events::waiters::Waiters, queries::Tables};

/// How old the copy may be before a submission has it renewed.
const FRESH: Duration = Duration::from_secs(5);
/// The pause after an event of a worker, for the projector to write it down, and between two readings.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
pub(crate) struct Advice {
    known: RwLock<Option<Known>>,
    wanted: Notify,
}

#[derive(Debug)]
struct Known {
    live: Arc<[WorkerView]>,
    read: Instant,
}

impl Advice {
    /// The workers that live and take work; nothing while they are not known.
    pub(crate) fn live(&self) -> Option<Arc<[WorkerView]>> {
        let known = self.known.read();
        if known.as_ref().is_none_or(|known| known.read.elapsed() > FRESH) {
            self.wanted.notify_one();
        }
        known.as_ref().map(|known| Arc::clone(&known.live))
    }
}

impl Advice {
    /// Takes a reading of the workers' table for the copy.
    pub(crate) fn note(&self, workers: &[WorkerView]) {
        let live = workers.iter().filter(|worker| worker.takes_work()).cloned().collect();
        *self.known.write() = Some(Known {
            live,
            read: Instant::now(),
        });
    }
}

/// What is to be said of this job, with these workers.
pub(crate) fn warning(spec: &JobSpec, live: &[WorkerView]) -> Option<String> {
    let queue = &spec.queue;
    let mut serving = live.iter().filter(|worker| worker.queues.contains(queue)).peekable();
    if serving.peek().is_none() {
        return Some(format!(
            "no worker serves queue {queue}; the job waits until one does: start it with `rgrid runner --queue {queue}`"
        ));
    }
    let needed = match (&spec.image, spec.executor) {
        (Some(_), _) => Some(ExecutorKind::Docker),
        (None, executor) => executor,
    };
    let (cpu, memory) = (spec.resources.cpu_milli, spec.resources.memory_bytes.unwrap_or(0));
    let fits = |worker: &WorkerView| {
        // No worker lists `noop`; every one can do nothing.
        let can = needed.is_none_or(|kind| kind == ExecutorKind::Noop || worker.executors.contains(&kind));
        can && worker.cpu_milli >= cpu && worker.memory_bytes >= memory
    };
    (!serving.any(fits)).then(|| {
        let cpus = f64::from(cpu) / 1000.0;
        let memory = if memory > 0 {
            format!(" with {memory} bytes of memory")
        } else {
            String::new()
        };
        let executor = needed.map(|kind| format!(" and the {kind} executor")).unwrap_or_default();
        format!("no worker of queue {queue} offers {cpus} CPUs{memory}{executor}; the job waits until one does")
    })
}

/// Keeps the copy, until `stop`: read at the start, when something happens to a worker, and when a submission finds it old.
pub(crate) async fn keep(advice: Arc<Advice>, tables: Tables, waiters: Arc<Waiters>, stop: CancellationToken) {
    loop {
        let mut nobody = false;
        match tables.workers().await {
            Ok(workers) => {
                advice.note(&workers);
                nobody = !workers.iter().any(|worker| worker.state == WorkerState::Live);
            }
            Err(problem) => debug!("the workers are not known: {}", problem.detail),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = advice.wanted.notified() => {}
            () = waiters.workers.notified() => tokio::time::sleep(PAUSE).await,
            // A grid that has just started: the first worker's row may be written later than its event is heard of.
            () = tokio::time::sleep(PAUSE), if nobody => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
