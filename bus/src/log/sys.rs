//! Reading the grid's own events: its runtimes, and the images that it stores.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream;
use futures::StreamExt as _;
use tokio::sync::watch;
use tracing::debug;

use super::{
    EVENTS,
    ask::Asker,
    read::{self, Error, Fact, Stored, decode, up_to},
};
use crate::{
    grid::{
        image::{self, Entry, ImageName},
        runtimes::{RuntimesEvent, RuntimesSet},
    },
    subjects,
};

/// How often the connection is checked for a reconnect, and how often the runtimes are read without a notification.
const LOOK: Duration = Duration::from_millis(500);
const ANYWAY: u32 = 120;

async fn newest(js: &jetstream::Context, filter: &str) -> Result<Option<Stored>, Error> {
    Asker::of(js, EVENTS).await?.last(filter).await
}

/// The last readable event under a filter, and the sequence of the last message there (0: none), after which the next event is appended.
/// Messages that cannot be read are skipped: any client may have published them, and they must not prevent a start.
async fn last_readable(js: &jetstream::Context, filter: &str) -> Result<(Option<Fact>, u64), Error> {
    let Some(newest) = newest(js, filter).await? else {
        return Ok((None, 0));
    };
    let read = |message: &Stored| match decode(&message.subject, message.sequence, &message.payload) {
        Ok(fact) => fact,
        Err(error) => {
            debug!("skipped an event on {filter}: {error}");
            None
        }
    };
    let mut fact = read(&newest);
    if fact.is_none() {
        let all = up_to(js, filter.to_owned(), newest.sequence).await?;
        fact = all.iter().rev().find_map(read);
    }
    Ok((fact, newest.sequence))
}

/// The deployment's runtimes, and the sequence of the last message about them; 0 if there is none.
///
/// # Errors
/// If the log cannot be read.
pub async fn runtimes(js: &jetstream::Context) -> Result<(RuntimesSet, u64), Error> {
    Ok(match last_readable(js, subjects::RUNTIMES).await? {
        (Some(Fact::Runtimes(envelope)), last) => {
            let RuntimesEvent::Set(set) = envelope.event;
            (set, last)
        }
        (_, last) => (RuntimesSet::default(), last),
    })
}

/// Keeps `known` up to date permanently: from notifications, and by reading the runtimes after each reconnect.
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
                // The next check tries again.
                Err(error) => debug!("cannot read the grid's runtimes yet: {error}"),
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

/// The last readable event of an image's name, and the sequence of the last message there (0: none), which the next writer must name.
///
/// # Errors
/// If the log cannot be read.
pub async fn image_event(js: &jetstream::Context, name: &ImageName) -> Result<(Option<image::Recorded>, u64), Error> {
    Ok(match last_readable(js, &subjects::image(name)).await? {
        (Some(Fact::Image(recorded)), last) => (Some(*recorded), last),
        (_, last) => (None, last),
    })
}

/// The image with this name in the catalogue.
///
/// # Errors
/// As [`image_event`].
pub async fn image(js: &jetstream::Context, name: &ImageName) -> Result<Option<Entry>, Error> {
    Ok(image_event(js, name).await?.0.and_then(Entry::of))
}

/// All images in the catalogue, by name. Their archives must not be removed from the store.
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
            Err(error) => debug!("skipped an event of the catalogue of images: {error}"),
        }
    }
    Ok(by_name.into_values().filter_map(Entry::of).collect())
}
