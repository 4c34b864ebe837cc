//! Purges the chunks of uploads whose process died: chunks that no metadata refers to.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt as _;
use tracing::info;

use super::{bucket::Bucket, error::Error, list};

/// Purges unused chunks whose upload stored nothing for `age`; returns how many uploads.
pub(super) async fn sweep(bucket: &Arc<Bucket>, age: Duration) -> Result<u64, Error> {
    let horizon = TimeDelta::from_std(age).ok().and_then(|age| Utc::now().checked_sub_signed(age));
    let horizon = i128::from(horizon.unwrap_or(DateTime::<Utc>::MIN_UTC).timestamp_millis());
    // Read the chunks first: metadata that is stored meanwhile is then seen, and its chunks are kept.
    let prefix = bucket.chunk_subject("");
    let lasts = list::last_of_each(Arc::clone(bucket), bucket.chunk_subject(">"), true);
    let mut silent: HashSet<String> = lasts
        .try_filter_map(|message| {
            let stored = message.info().map(|info| info.published.unix_timestamp_nanos() / 1_000_000);
            let nuid = message.subject.strip_prefix(&prefix).map(str::to_owned);
            let nuid = nuid.filter(|_| stored.is_ok_and(|stored| stored <= horizon));
            async move { Ok(nuid) }
        })
        .try_collect()
        .await?;
    let mut infos = std::pin::pin!(list::infos(Arc::clone(bucket)));
    while let Some(object) = infos.try_next().await? {
        if !object.deleted {
            silent.remove(&object.nuid);
        }
    }
    for nuid in &silent {
        bucket.purge_chunks(nuid).await?;
        info!(bucket = %bucket.name(), nuid, "purged the chunks of the unfinished upload {nuid}");
    }
    Ok(silent.len() as u64)
}
