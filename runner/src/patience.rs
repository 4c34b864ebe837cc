//! Waiting out a store that is away.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use tracing::warn;

/// The first pause, the longest one, and how long all tries may take together: an outage of minutes costs no job.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
const IN_ALL: Duration = Duration::from_secs(600);

/// Does something with the store, again and again for up to ten minutes where the store is away.
///
/// # Errors
/// What the store said last; at once where asking again cannot help.
pub(crate) async fn patiently<T, F, W>(what: &str, work: W) -> Result<T, store::Error>
where
    W: FnMut() -> F,
    F: Future<Output = Result<T, store::Error>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(PAUSE.0)
        .with_max_delay(PAUSE.1)
        .with_total_delay(Some(IN_ALL))
        .without_max_times()
        .with_jitter();
    work.retry(pauses)
        .when(store::Error::is_transient)
        .notify(|error, pause| warn!("cannot {what} yet ({error}); trying again in {:.1} s", pause.as_secs_f32()))
        .await
}
