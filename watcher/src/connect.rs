//! Connects to a broker that may not be up yet.

use std::time::Duration;

use bus::log::{connect::Bus, setup};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Error;

/// The first pause between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Connects, and creates or checks the streams. Waits for a broker that is not up; returns nothing if it is stopped before.
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
                    info!("NATS is up");
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
