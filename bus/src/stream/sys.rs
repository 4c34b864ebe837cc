//! What the log says of the grid itself: its runtimes, and the images that it keeps.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream;
use futures::StreamExt as _;
use tokio::sync::watch;
use tracing::debug;

use super::{
    EVENTS,
    read::{self, Error, Fact, Stored, clustered, decode, handle, last, up_to},
};
use crate::{
    image::{self, Entry, ImageName},
    runtimes::{RuntimesEvent, RuntimesSet},
    subjects,
};

/// How often it is looked whether the connection was made anew, and how often the table is read although nobody spoke of it.
const LOOK: Duration = Duration::from_millis(500);
const ANYWAY: u32 = 120;

async fn newest(js: &jetstream::Context, filter: &str) -> Result<Option<Stored>, Error> {
    let clustered = clustered(js);
    last(&handle(js, EVENTS, clustered).await?, filter, clustered).await
}

/// The deployment's runtimes as they stand, and the sequence of the event that says so; 0: nobody ever said anything.
///
/// # Errors
/// If the log cannot be read, or its last word is of a newer version.
pub async fn runtimes(js: &jetstream::Context) -> Result<(RuntimesSet, u64), Error> {
    let Some(message) = newest(js, subjects::RUNTIMES).await? else {
        return Ok((RuntimesSet::default(), 0));
    };
    Ok(match decode(&message.subject, message.sequence, &message.payload)? {
        Some(Fact::Runtimes(envelope)) => {
            let RuntimesEvent::Set(set) = envelope.event;
            (set, message.sequence)
        }
        Some(Fact::Job(_) | Fact::Batch(_) | Fact::Worker(_) | Fact::Image(_)) | None => (RuntimesSet::default(), message.sequence),
    })
}

/// Keeps `known` as the log has it, for ever: by what is said, and by reading it after each reconnect.
pub async fn keep_runtimes(js: &jetstream::Context, known: &watch::Sender<Arc<RuntimesSet>>) {
    let connects = || js.client().statistics().connects.load(std::sync::atomic::Ordering::Relaxed);
    let (mut facts, mut read_at, mut looks) = (None, None, 0);
    loop {
        if facts.is_none() {
            facts = js.client().subscribe(subjects::RUNTIMES_FACT).await.ok();
        }
        let now = connects();
        if read_at != Some(now) || looks >= ANYWAY {
            match runtimes(js).await {
                Ok((set, _)) => {
                    (read_at, looks) = (Some(now), 0);
                    known.send_if_modified(|known| {
                        let changed = **known != set;
                        if changed {
                            *known = Arc::new(set);
                        }
                        changed
                    });
                }
                // It is tried again at the next look.
                Err(error) => debug!("cannot read yet which runtimes the grid has: {error}"),
            }
        }
        let next = async {
            match &mut facts {
                Some(facts) => facts.next().await,
                None => std::future::pending().await,
            }
        };
        match tokio::time::timeout(LOOK, next).await {
            Ok(Some(_)) => read_at = None,
            Ok(None) => facts = None,
            Err(_) => looks += 1,
        }
    }
}

/// The last event of a name of the catalogue.
///
/// # Errors
/// If the log cannot be read, or the event is of a newer version.
pub async fn image_event(js: &jetstream::Context, name: &ImageName) -> Result<Option<image::Recorded>, Error> {
    let Some(message) = newest(js, &subjects::image(name)).await? else {
        return Ok(None);
    };
    Ok(match decode(&message.subject, message.sequence, &message.payload)? {
        Some(Fact::Image(recorded)) => Some(*recorded),
        Some(Fact::Job(_) | Fact::Batch(_) | Fact::Worker(_) | Fact::Runtimes(_)) | None => None,
    })
}

/// The image that the catalogue has under a name.
///
/// # Errors
/// As [`image_event`].
pub async fn image(js: &jetstream::Context, name: &ImageName) -> Result<Option<Entry>, Error> {
    Ok(image_event(js, name).await?.and_then(Entry::of))
}

/// All images of the catalogue, by name. Their archives are what nobody may remove from the store.
///
/// # Errors
/// If the log cannot be read.
pub async fn images(js: &jetstream::Context) -> Result<Vec<Entry>, Error> {
    let Some(newest) = newest(js, subjects::IMAGES).await? else {
        return Ok(Vec::new());
    };
    let mut by_name = BTreeMap::new();
    for message in up_to(js, subjects::IMAGES.to_owned(), newest.sequence).await? {
        match read::decode(&message.subject, message.sequence, &message.payload) {
            Ok(Some(Fact::Image(recorded))) => drop(by_name.insert(recorded.name.clone(), *recorded)),
            Ok(_) => {}
            Err(error) => debug!("of the catalogue of images, something is set aside: {error}"),
        }
    }
    Ok(by_name.into_values().filter_map(Entry::of).collect())
}
