//! The checkpoint of a storage pass: the fold of the log, saved in the store, so that the next pass reads only the events after it.
//!
//! Deletion depends on it: a content that it lacks is removed. So it is used only if it is signed, and of this program ([`super::signed`]), and if
//! the log that is read is the one that it was made of; and the log must be whole, as without it ([`bus::log::whole`]). In every other
//! case the log is read from its beginning.

use std::{
    io::{BufReader, BufWriter},
    sync::Arc,
};

use bus::{ids::Digest, log::inspect};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use store::Files;

use super::{
    fold::Fold,
    retention::Moment,
    signed::{self, Signed},
};
use crate::key::Key;

/// Its name in the store. There is one, which each pass replaces.
const NAME: &str = "collector/checkpoint";

/// The head of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CheckpointHead {
    /// When it was made; for people.
    at: DateTime<Utc>,
    /// When the log was made, in nanoseconds since 1970.
    log_made: String,
    /// The last event that it is the fold of, and that message's fingerprint.
    sequence: u64,
    event: Digest,
}

/// Why a checkpoint is not used, or cannot be saved.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Signed(#[from] signed::Error),
    #[error("it is of another log: the event at sequence {0} is another one, or missing")]
    OtherLog(u64),
    #[error("it lacks inputs that are to be kept")]
    Forgotten,
    #[error("cannot read the event at its sequence")]
    Log(#[source] bus::log::setup::Error),
    #[error("the task failed")]
    Cancelled,
}

/// Where checkpoints are kept, and what is checked of them.
#[derive(Clone, Copy)]
pub(super) struct Checkpoints<'a> {
    pub(super) js: &'a async_nats::jetstream::Context,
    pub(super) files: &'a Files,
    pub(super) key: Key,
    /// When the log was made, in nanoseconds since 1970.
    pub(super) log_made: i128,
}

impl Checkpoints<'_> {
    /// The fold of the log up to a sequence, if one is kept that holds for this log, whose `last` sequence this is, and at this moment.
    pub(super) async fn load(&self, at: &Moment, last: u64) -> Result<(Fold, u64), Error> {
        let (place, body) = self.kept().load::<CheckpointHead>().await?;
        let is_of_it = place.log_made == self.log_made.to_string() && place.sequence <= last;
        if !is_of_it || self.event(place.sequence).await? != Some(place.event) {
            return Err(Error::OtherLog(place.sequence));
        }
        let fold = tokio::task::spawn_blocking(move || unpacked(&body)).await;
        let fold = fold.map_err(|_| Error::Cancelled)??;
        if !fold.suffices(at) {
            return Err(Error::Forgotten);
        }
        Ok((fold, place.sequence))
    }

    /// Keeps the fold of the log up to a sequence.
    pub(super) async fn save(&self, fold: Arc<Fold>, sequence: u64) -> Result<(), Error> {
        let place = CheckpointHead {
            at: Utc::now(),
            log_made: self.log_made.to_string(),
            sequence,
            event: self.event(sequence).await?.ok_or(Error::OtherLog(sequence))?,
        };
        let body = tokio::task::spawn_blocking(move || packed(&fold)).await;
        let body = body.map_err(|_| Error::Cancelled)??;
        Ok(self.kept().save(&place, body).await?)
    }

    const fn kept(&self) -> Signed<'_> {
        Signed {
            files: self.files,
            key: self.key,
            name: NAME,
        }
    }

    async fn event(&self, sequence: u64) -> Result<Option<Digest>, Error> {
        inspect::fingerprint_at(self.js, sequence).await.map_err(Error::Log)
    }
}

fn unpacked(body: &[u8]) -> Result<Fold, signed::Error> {
    let damaged = |error: std::io::Error| signed::Error::Damaged(error.to_string());
    let text = zstd::stream::read::Decoder::new(body).map_err(damaged)?;
    Fold::read(BufReader::new(text)).map_err(damaged)
}

fn packed(fold: &Fold) -> Result<Vec<u8>, signed::Error> {
    let damaged = |error: std::io::Error| signed::Error::Damaged(error.to_string());
    let mut text = BufWriter::new(zstd::stream::write::Encoder::new(Vec::new(), 1).map_err(damaged)?);
    fold.write(&mut text).map_err(damaged)?;
    let text = text.into_inner().map_err(|error| damaged(error.into_error()))?;
    text.finish().map_err(damaged)
}
