//! What was found when the store was looked at last: it answers `rgrid storage` at once, however much there is.

use chrono::{DateTime, Utc};
use model::{GcReport, HeldBy, Kept, StorageView};
use serde::{Deserialize, Serialize};

use super::{
    Error, Storing,
    pass::{Grounds, millis},
    survey::Survey,
};

/// What is noted of a look.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Known {
    /// The last sequence of the log that was read.
    last: u64,
    view: StorageView,
}

impl Known {
    /// When the store was looked at.
    pub(super) const fn looked_at(&self) -> DateTime<Utc> {
        self.view.looked_at
    }
}

impl Grounds<'_> {
    /// What was found last in this store.
    ///
    /// # Errors
    /// The marks do not answer.
    pub(super) async fn known(&self) -> Result<Option<Known>, Error> {
        let known = self.marks.last_survey::<Known>().await?;
        Ok(known.filter(|known| known.view.store == self.files.url().to_string()))
    }

    /// Notes what was found at a moment.
    ///
    /// # Errors
    /// The marks do not answer.
    pub(super) async fn note(&self, found: &Survey, looked_at: DateTime<Utc>) -> Result<Known, Error> {
        let limit = self.limit_at(found, looked_at);
        let (going, _) = self.going(found, limit).await?;
        let known = Known {
            last: found.last,
            view: StorageView {
                store: self.files.url().to_string(),
                looked_at,
                events_since: 0,
                all: found.all,
                uses: found.uses.clone(),
                other: found.other,
                going,
                jobs: found.jobs.clone(),
                batches: found.batches.clone(),
                keeping: kept(&self.storing),
                held_by: found.oldest_claim.map(|(job, claimed_at)| HeldBy { job, claimed_at }),
                last_pass: None,
            },
        };
        self.marks.note_survey(&known).await?;
        Ok(known)
    }

    /// What is known, with what is known of now: the log ends at this sequence.
    ///
    /// # Errors
    /// The marks do not answer.
    pub(super) async fn answer(&self, known: Known, last: u64) -> Result<StorageView, Error> {
        let pass = self.marks.last_pass::<GcReport>().await?;
        Ok(StorageView {
            events_since: last.saturating_sub(known.last),
            keeping: kept(&self.storing),
            last_pass: pass.map(|(report, _)| report),
            ..known.view
        })
    }
}

fn kept(storing: &Storing) -> Kept {
    Kept {
        grace_ms: millis(storing.grace),
        inputs_ms: millis(storing.keeping.inputs),
        outputs_ms: storing.keeping.outputs.map(millis),
        packages_ms: millis(storing.keeping.packages),
        every_ms: storing.every.map(millis),
    }
}
