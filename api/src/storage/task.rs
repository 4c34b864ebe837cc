//! The storage pass that runs automatically.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use model::GcReport;
use tracing::{debug, warn};

use super::{Error, http::storage_pass};
use crate::{app::App, error::chain};

/// The longest pause between two checks for whether a pass is due.
const CHECK_MAX: Duration = Duration::from_secs(600);

/// Runs a pass whenever the last one, of any API, is long enough ago; until the API stops.
pub(crate) async fn run_passes(app: Arc<App>) {
    let Some(every) = app.storage_config.every else { return };
    let stop = app.stop.clone();
    while stop.run_until_cancelled(tokio::time::sleep(every.min(CHECK_MAX))).await.is_some() {
        let pass = Box::pin(async {
            if recently(&app, every).await? {
                return Ok(());
            }
            storage_pass(&app, app.storage_config).run().await.map(drop)
        });
        match stop.run_until_cancelled(pass).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error @ Error::Busy(_))) => debug!("{error}"),
            Some(Err(error)) => warn!("the storage pass failed: {}; trying again later", chain(&error)),
        }
    }
}

async fn recently(app: &App, every: Duration) -> Result<bool, Error> {
    let last = app.marks.last_pass::<GcReport>().await?;
    Ok(last.is_some_and(|(_, ended)| Utc::now().signed_duration_since(ended).to_std().is_ok_and(|ago| ago < every)))
}
