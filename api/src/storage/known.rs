//! The last survey of the store, which answers `rgrid storage` at once.

use chrono::{DateTime, Utc};
use model::{GcReport, HeldBy, RetentionView, StorageView};
use serde::{Deserialize, Serialize};

use super::{
    Error, StorageConfig,
    pass::{StoragePass, millis},
    survey::Survey,
};

/// A saved survey.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Known {
    /// The last sequence of the log that was read.
    last: u64,
    view: StorageView,
}

impl Known {
    /// When the store was surveyed.
    pub(super) const fn looked_at(&self) -> DateTime<Utc> {
        self.view.looked_at
    }
}

impl StoragePass<'_> {
    /// The last survey of this store.
    ///
    /// # Errors
    /// The marks do not answer.
    pub(super) async fn known(&self) -> Result<Option<Known>, Error> {
        let known = self.marks.last_survey::<Known>().await?;
        Ok(known.filter(|known| known.view.store == self.files.url().to_string()))
    }

    /// Saves a survey.
    ///
    /// # Errors
    /// The marks do not answer.
    pub(super) async fn note(&self, found: &Survey, looked_at: DateTime<Utc>) -> Result<Known, Error> {
        let limit = self.limit_at(found, looked_at);
        let (removal, _) = self.removal_schedule(found, limit).await?;
        let known = Known {
            last: found.last,
            view: StorageView {
                store: self.files.url().to_string(),
                looked_at,
                events_since: 0,
                all: found.all,
                uses: found.uses.clone(),
                other: found.other,
                removal,
                jobs: found.jobs.clone(),
                batches: found.batches.clone(),
                keeping: kept(&self.storage_config),
                held_by: found.oldest_claim.map(|(job, claimed_at)| HeldBy { job, claimed_at }),
                last_pass: None,
            },
        };
        self.marks.note_survey(&known).await?;
        Ok(known)
    }

    /// The answer from a saved survey, with the current settings. `last` is the last sequence of the log.
    ///
    /// # Errors
    /// The marks do not answer.
    pub(super) async fn answer(&self, known: Known, last: u64) -> Result<StorageView, Error> {
        let pass = self.marks.last_pass::<GcReport>().await?;
        Ok(StorageView {
            events_since: last.saturating_sub(known.last),
            keeping: kept(&self.storage_config),
            last_pass: pass.map(|(report, _)| report),
            ..known.view
        })
    }
}

fn kept(storage_config: &StorageConfig) -> RetentionView {
    RetentionView {
        grace_ms: millis(storage_config.grace),
        inputs_ms: millis(storage_config.retention.inputs),
        outputs_ms: storage_config.retention.outputs.map(millis),
        packages_ms: millis(storage_config.retention.packages),
        every_ms: storage_config.every.map(millis),
    }
}
