//! Getting to a broker that may not be there yet.

use std::time::Duration;

use async_nats::jetstream;
use bus::log::{
    connect::{self, Bus},
    setup,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The first pause between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What an operator must change before the watcher can run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server will not do, or its URL is none.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The streams are not as they must be.
    #[error(transparent)]
    Streams(#[from] setup::Error),
}

impl Error {
    /// Whether it may pass by itself: nobody answers yet.
    fn passes(&self) -> bool {
        use jetstream::context::RequestErrorKind::{NoResponders, TimedOut};
        match self {
            Self::Connect(error) => matches!(error, connect::Error::Connect { .. }),
            Self::Streams(setup::Error::Request { source, .. }) => matches!(source.kind(), NoResponders | TimedOut),
            Self::Streams(_) => false,
        }
    }
}

/// Connects, and makes or checks the streams; waits for a broker that is not there. Nothing, if it is stopped before.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn connect(urls: &str, name: &str, replicas: u8, stop: &CancellationToken) -> Result<Option<Bus>, Error> {
    let mut pause = PAUSE.0;
    let mut waited = false;
    loop {
        let error = match attempt(urls, name, replicas).await {
            Ok(bus) => {
                if waited {
                    info!("NATS is there");
                }
                return Ok(Some(bus));
            }
            Err(error) if error.passes() => error,
            Err(error) => return Err(error),
        };
        if !waited {
            warn!("{error}; waiting for it");
            waited = true;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
        }
    }
}

async fn attempt(urls: &str, name: &str, replicas: u8) -> Result<Bus, Error> {
    let bus = Bus::connect(urls, name).await?;
    setup::streams(&bus.js, replicas).await?;
    Ok(bus)
}
