//! How full the log is. New jobs are refused before it is, so that what runs can still end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream;
use bus::stream::EVENTS;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    error::{Kind, Problem},
    waiters::Waiters,
};

/// How often the server is asked.
const PERIOD: Duration = Duration::from_secs(2);
/// The part of the bound, in hundredths, that submissions may fill.
const FOR_SUBMISSIONS: u64 = 90;
/// What the server and the envelope add to an event, in bytes, roughly.
const OVERHEAD: u64 = 512;

/// How full the log is: as the server said last, and what was added here since.
#[derive(Debug, Default)]
pub(crate) struct Fill {
    used: AtomicU64,
    /// 0: without bound, or not known yet.
    max: AtomicU64,
}

impl Fill {
    /// Whether there is room for new jobs whose submissions are this long together, in bytes.
    pub(crate) fn admit(&self, jobs: u64, bytes: u64) -> Result<(), Problem> {
        let max = self.max.load(Ordering::Relaxed);
        let limit = max / 100 * FOR_SUBMISSIONS;
        let used = self.used.load(Ordering::Relaxed);
        if max != 0 && used.saturating_add(bytes) > limit {
            let detail = format!(
                "the log {EVENTS} holds {used} of its {max} bytes, and above {FOR_SUBMISSIONS} % no new jobs are taken, so that those \
                 which run can end; raise its bound (`nats stream edit {EVENTS} --max-bytes=…`)"
            );
            return Err(Problem::new(Kind::Full, detail));
        }
        self.used.fetch_add(bytes + jobs * OVERHEAD, Ordering::Relaxed);
        Ok(())
    }

    fn set(&self, used: u64, max: u64) {
        let near = |used: u64, max: u64| max != 0 && used > max / 100 * FOR_SUBMISSIONS;
        let before = near(self.used.swap(used, Ordering::Relaxed), self.max.swap(max, Ordering::Relaxed));
        if near(used, max) && !before {
            warn!("the log {EVENTS} holds {used} of its {max} bytes; no new jobs are taken until its bound is raised");
        }
    }
}

/// Asks the server now and then, until `stop`.
/// What the log holds is told to the waiters as well, who then need not look themselves.
pub(crate) async fn watch(fill: Arc<Fill>, waiters: Arc<Waiters>, js: jetstream::Context, stop: CancellationToken) {
    loop {
        match js.get_stream(EVENTS).await {
            Ok(stream) => {
                let info = stream.cached_info();
                waiters.looked(info.state.last_sequence);
                fill.set(info.state.bytes, u64::try_from(info.config.max_bytes).unwrap_or(0));
            }
            Err(error) => debug!("cannot tell how full {EVENTS} is: {error}"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_are_for_submissions() {
        let fill = Fill::default();
        assert!(fill.admit(1, u64::MAX / 2).is_ok(), "not known yet: the server refuses if it must");
        fill.set(8_000, 10_000);
        assert!(fill.admit(1, 100).is_ok());
        assert!(fill.admit(1, 900).is_err());
        fill.set(9_001, 10_000);
        assert_eq!(fill.admit(1, 0).expect_err("full").status, 507);
        fill.set(9_001, 0);
        assert!(fill.admit(1, 1 << 40).is_ok(), "no bound");
    }
}
