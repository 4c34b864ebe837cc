//! A limit on how slowly a body may arrive. It is not a limit on the whole time, so that a slow line can send a large file.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, timeout};

/// The slowest allowed rate once the patience is used up, in bytes a second: a modem of 1995 is four times as fast.
const MIN_RATE: u64 = 1_024;

/// How much of a body has arrived.
#[derive(Debug)]
struct Progress {
    patience: Duration,
    /// How long the API has waited for it.
    waited: Duration,
    bytes: u64,
}

/// A body arrived too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the client sent only {bytes} bytes in {} s", waited.as_secs())]
struct TooSlow {
    bytes: u64,
    waited: Duration,
}

impl Progress {
    /// How long to wait for the next piece.
    fn allowance(&self) -> Duration {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000) / MIN_RATE);
        let left = (self.patience + earned).saturating_sub(self.waited);
        left.min(self.patience)
    }
}

/// A body that fails if nothing of it arrives for `patience`, or if it arrives more slowly than [`MIN_RATE`]. Only the time that the API
/// waits for the client counts.
pub(crate) fn bounded(body: Body, patience: Duration) -> Body {
    Body::from_stream(pieces(body.into_data_stream(), patience))
}

fn pieces<E: std::error::Error + Send + Sync + 'static>(
    body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    patience: Duration,
) -> impl Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send + 'static {
    let progress = Progress {
        patience,
        waited: Duration::ZERO,
        bytes: 0,
    };
    stream::try_unfold((Box::pin(body), progress), |(mut body, mut progress)| async move {
        let since = Instant::now();
        let next = timeout(progress.allowance(), body.next()).await;
        progress.waited += since.elapsed();
        match next {
            Ok(Some(piece)) => {
                let piece = piece?;
                progress.bytes += piece.len() as u64;
                Ok(Some((piece, (body, progress))))
            }
            Ok(None) => Ok(None),
            Err(_) => Err(TooSlow {
                bytes: progress.bytes,
                waited: progress.waited,
            }
            .into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a body lasts if this many bytes arrive at this interval, up to an hour.
    async fn lasts(bytes: usize, every: Duration) -> Duration {
        let body = stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![0; bytes])), ()))
        });
        let (begun, hour) = (Instant::now(), Duration::from_secs(3_600));
        let _breaks_off = timeout(
            hour,
            pieces(body, Duration::from_secs(30))
                .take_while(|piece| std::future::ready(piece.is_ok()))
                .count(),
        )
        .await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_breaks_off_where_it_does_not_progress_and_a_slow_one_goes_on() {
        let second = Duration::from_secs(1);
        assert_eq!(lasts(1 << 20, 31 * second).await, 30 * second, "nothing comes");
        let drops = lasts(1, second).await;
        assert!((30 * second..33 * second).contains(&drops), "a byte a second: {drops:?}");
        assert_eq!(lasts(2_048, second).await, 3_600 * second, "slow, and it goes on");
        assert_eq!(lasts(64 << 10, 29 * second).await, 3_600 * second, "in bursts");
    }
}
