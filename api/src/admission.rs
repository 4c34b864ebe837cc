//! Admission: refuses new jobs before the log is full, so that the jobs that run can still end.

use std::{sync::Arc, time::Duration};

use bus::log::{
    EVENTS,
    room::{Addition, Admitted, Fill, Gauge, OVERHEAD},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{error::ApiError, events::waiters::Waiters};

/// The longest pause between two looks at the log; the waiters depend on it.
const PERIOD: Duration = Duration::from_secs(2);

/// Reserves room in the log for new jobs, whose submissions have `bytes` together. Keep the reservation until they are stored.
pub(crate) async fn admit(gauge: &Arc<Gauge>, jobs: u64, bytes: u64) -> Result<Admitted, ApiError> {
    let all = bytes.saturating_add(jobs.saturating_mul(OVERHEAD));
    gauge.admit(Addition::Jobs, all).await.map_err(|fill| ApiError::full(fill, all))
}

/// Looks at the log regularly, until `stop`, and passes its last sequence on to the waiters.
pub(crate) async fn watch(gauge: Arc<Gauge>, waiters: Arc<Waiters>, stop: CancellationToken) {
    let mut is_full = false;
    loop {
        match gauge.look().await {
            Ok(last) => {
                waiters.looked(last);
                let fill = gauge.fill();
                let was_full = std::mem::replace(&mut is_full, !fill.has_room(Addition::Jobs));
                if is_full && !was_full {
                    let Fill { used, max } = fill;
                    warn!("the log {EVENTS} holds {used} of its {max} bytes; no new jobs are accepted until its bound is raised");
                }
            }
            Err(error) => debug!("cannot read how full {EVENTS} is: {error}"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(gauge.fill().look_again().min(PERIOD)) => {}
        }
    }
}
