//! What a killed supervisor left running: found by the records, and ended in order.

use futures::future::join_all;

use super::{dir::DataDir, part::Part, process::Process};

/// Ends every recorded process that still lives; returns which there were. To be called with the lock held.
pub(super) async fn stop(dir: &DataDir) -> Vec<Part> {
    let mut stopped = Vec::new();
    for stage in 0..Part::STOP_STAGES {
        let of_stage = Part::ALL.into_iter().filter(|part| part.stop_stage() == stage);
        let alive: Vec<(Part, Process)> = of_stage
            .filter_map(|part| Some((part, dir.read_part(part)?.process?.open()?)))
            .collect();
        join_all(alive.iter().map(|(part, process)| end(*part, process))).await;
        stopped.extend(alive.iter().map(|(part, _)| *part));
    }
    stopped
}

async fn end(part: Part, process: &Process) {
    for (signal, patience) in part.stop_ladder() {
        process.signal(*signal);
        // What SIGKILL does not end within a minute hangs in the kernel; nothing more can be done about it.
        if process.ended_within(patience.unwrap_or(std::time::Duration::from_secs(60))).await {
            return;
        }
    }
}

/// `nats, postgres`
pub(super) fn names(parts: &[Part]) -> String {
    parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ")
}
