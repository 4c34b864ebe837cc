//! A service's life: until a signal, and then in good order.

use std::{future::Future, process::ExitCode};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Runs a service until SIGTERM or SIGINT. The first one lets it finish what it does, the second ends the process.
///
/// # Errors
/// If the service cannot go on.
pub(crate) async fn serve<E, F>(name: &str, service: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    E: Into<anyhow::Error>,
    F: Future<Output = Result<(), E>>,
{
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let stop = CancellationToken::new();
    info!("rgrid {name} {} starts", env!("CARGO_PKG_VERSION"));
    let mut running = Box::pin(service(stop.clone()));
    loop {
        let signal = tokio::select! {
            ended = &mut running => {
                ended.map_err(Into::into)?;
                info!("rgrid {name} ended");
                return Ok(ExitCode::SUCCESS);
            }
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if stop.is_cancelled() {
            warn!("{signal} again: stopping immediately");
            return Ok(ExitCode::FAILURE);
        }
        info!("{signal}: finishing running work; send the signal again to stop immediately");
        stop.cancel();
    }
}
