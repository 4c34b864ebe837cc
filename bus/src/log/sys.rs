//! What the log says of the grid itself: its runtimes, and the images that it keeps.

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

/// How often it is looked whether the connection was made anew, and how often the table is read although nobody spoke of it.
const LOOK: Duration = Duration::from_millis(500);
const ANYWAY: u32 = 120;

async fn newest(js: &jetstream::Context, filter: &str) -> Result<Option<Stored>, Error> {
    Asker::of(js, EVENTS).await?.last(filter).await
}

/// The last event under a filter that can be read, and the sequence of the last message there, behind which the next one may be
/// appended; 0: there is none. What cannot be read is stepped over: anybody may have published it, and it must not stop a start.
async fn last_readable(js: &jetstream::Context, filter: &str) -> Result<(Option<Fact>, u64), Error> {
    let Some(newest) = newest(js, filter).await? else {
        return Ok((None, 0));
    };
    let read = |message: &Stored| match decode(&message.subject, message.sequence, &message.payload) {
        Ok(fact) => fact,
        Err(error) => {
            debug!("of {filter}, something is set aside: {error}");
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

/// The deployment's runtimes as they stand, and the sequence of the last message about them; 0: nobody ever said anything.
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

/// The last event of a name of the catalogue that can be read, and the sequence of the last message there, which the next writer
/// must name; 0: there is none.
///
/// # Errors
/// If the log cannot be read.
pub async fn image_event(js: &jetstream::Context, name: &ImageName) -> Result<(Option<image::Recorded>, u64), Error> {
    Ok(match last_readable(js, &subjects::image(name)).await? {
        (Some(Fact::Image(recorded)), last) => (Some(*recorded), last),
        (_, last) => (None, last),
    })
}

/// The image that the catalogue has under a name.
///
/// # Errors
/// As [`image_event`].
pub async fn image(js: &jetstream::Context, name: &ImageName) -> Result<Option<Entry>, Error> {
    Ok(image_event(js, name).await?.0.and_then(Entry::of))
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
