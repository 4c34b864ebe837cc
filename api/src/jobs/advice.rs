//! Warnings about accepted jobs: no worker serves the queue, or no worker is large enough.
//!
//! They come from a copy of the workers' table that is a few seconds old at most. No submission waits for it.

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

/// How old the copy may be before a submission causes a refresh.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// The pause after an event of a worker, for the projector to write it to the table, and between two reads.
const PAUSE: Duration = Duration::from_millis(300);

/// The copy of the workers' table.
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
    /// The live workers that take work; `None` while they are not known.
    pub(crate) fn live(&self) -> Option<Arc<[WorkerView]>> {
        let known = self.known.read();
        if known.as_ref().is_none_or(|known| known.read.elapsed() > FRESH_FOR) {
            self.wanted.notify_one();
        }
        known.as_ref().map(|known| Arc::clone(&known.live))
    }
}

impl Advice {
    /// Replaces the copy by what was read from the table.
    pub(crate) fn note(&self, workers: &[WorkerView]) {
        let live = workers.iter().filter(|worker| worker.takes_work()).cloned().collect();
        *self.known.write() = Some(Known {
            live,
            read: Instant::now(),
        });
    }
}

/// A warning about this job, given these workers.
pub(crate) fn warning(spec: &JobSpec, live: &[WorkerView]) -> Option<String> {
    let queue = &spec.queue;
    let mut serving = live.iter().filter(|worker| worker.queues.contains(queue)).peekable();
    if serving.peek().is_none() {
        return Some(format!(
            "no worker serves queue {queue}; the job waits until one does: start one with `rgrid runner --queue {queue}`"
        ));
    }
    let needed = match (&spec.image, spec.executor) {
        (Some(_), _) => Some(ExecutorKind::Docker),
        (None, executor) => executor,
    };
    let (cpu, memory) = (spec.resources.cpu_milli, spec.resources.memory_bytes.unwrap_or(0));
    let fits = |worker: &WorkerView| {
        // Every worker can run `noop` jobs, and none lists that executor.
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

/// Refreshes the copy until `stop`: at the start, after an event of a worker, and when a submission finds it too old.
pub(crate) async fn keep(advice: Arc<Advice>, tables: Tables, waiters: Arc<Waiters>, stop: CancellationToken) {
    loop {
        let mut none_live = false;
        match tables.workers().await {
            Ok(workers) => {
                advice.note(&workers);
                none_live = !workers.iter().any(|worker| worker.state == WorkerState::Live);
            }
            Err(problem) => debug!("cannot read the workers: {}", problem.detail),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = advice.wanted.notified() => {}
            () = waiters.workers.notified() => tokio::time::sleep(PAUSE).await,
            // In a grid that has just started, the first worker's row may be written after its event arrived here.
            () = tokio::time::sleep(PAUSE), if none_live => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
