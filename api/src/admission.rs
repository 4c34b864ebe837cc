//! How full the log is. New jobs are refused before it is, so that what runs can still end.

use std::{sync::Arc, time::Duration};

use bus::log::{
    EVENTS,
    room::{Addition, Admitted, Fill, Gauge, OVERHEAD},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{error::ApiError, events::waiters::Waiters};

/// How often the server is asked at least: the waiters go by it.
const PERIOD: Duration = Duration::from_secs(2);

/// Room in the log for new jobs whose submissions are this long together, in bytes. It is to be kept until they are stored.
pub(crate) async fn admit(gauge: &Arc<Gauge>, jobs: u64, bytes: u64) -> Result<Admitted, ApiError> {
    let all = bytes.saturating_add(jobs.saturating_mul(OVERHEAD));
    gauge.admit(Addition::Jobs, all).await.map_err(|fill| ApiError::full(fill, all))
}

/// Asks the server now and then, until `stop`.
/// What the log holds is told to the waiters as well, who then need not look themselves.
pub(crate) async fn watch(gauge: Arc<Gauge>, waiters: Arc<Waiters>, stop: CancellationToken) {
    let mut refuses = false;
    loop {
        match gauge.look().await {
            Ok(last) => {
                waiters.looked(last);
                let fill = gauge.fill();
                let refused = std::mem::replace(&mut refuses, !fill.has_room(Addition::Jobs));
                if refuses && !refused {
                    let Fill { used, max } = fill;
                    warn!("the log {EVENTS} holds {used} of its {max} bytes; no new jobs are taken until its bound is raised");
                }
            }
            Err(error) => debug!("cannot tell how full {EVENTS} is: {error}"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(gauge.fill().look_again().min(PERIOD)) => {}
        }
    }
}
