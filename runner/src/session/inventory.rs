//! A worker's inventory: the runtimes and images that it can run scripts with. The worker publishes it on a stream that keeps the last
//! inventory of each worker; the log would keep every one permanently (decision 0014).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use bus::{
    grid::runtimes::RuntimesSet,
    log::{EQUIPMENT, sys},
    subjects,
    worker::{CurrentEquipment, Equipment, Equipped},
};
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::attempt::context::Context;

/// How often the inventory is taken where nothing announces a change.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// The pause before an inventory that could not be published is published again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How often the stream must be missing before the operator is warned.
const MISSING_LOOKS: u32 = 2;
/// The most images that are listed: those of the runtimes first.
const IMAGES_MAX: usize = 200;

/// Follows the deployment's runtimes, and publishes what this worker has of them, for as long as it is polled. `registered_at`: when the
/// session was registered.
pub(crate) async fn keep(context: Arc<Context>, registered_at: DateTime<Utc>) {
    let first = match context.executors.runtimes.read(&context.js).await {
        Ok(set) => set,
        Err(error) => {
            warn!(
                "cannot read yet which runtimes the deployment has: {}",
                crate::errors::chain(&error)
            );
            RuntimesSet::default()
        }
    };
    let (known, seen) = watch::channel(Arc::new(first));
    tokio::join!(
        sys::keep_runtimes(&context.js, &known),
        publish_changes(&context, registered_at, seen)
    );
}

async fn publish_changes(context: &Context, registered_at: DateTime<Utc>, mut seen: watch::Receiver<Arc<RuntimesSet>>) {
    let (mut published, mut missing) = (None, 0_u32);
    loop {
        let set = Arc::clone(&seen.borrow_and_update());
        context.executors.runtimes.deployed(&set);
        let equipped = take_inventory(context).await;
        let mut pause = LOOK_PERIOD;
        if is_due(published.as_ref(), &equipped, Instant::now()) {
            match publish(context, registered_at, equipped.clone()).await {
                Ok(()) => (published, missing) = (Some((Instant::now(), equipped)), 0),
                Err(error) => {
                    pause = RETRY_PAUSE;
                    // A starting server says so too, for a moment.
                    missing += u32::from(error.kind() == PublishErrorKind::StreamNotFound);
                    if missing == MISSING_LOOKS {
                        warn!(
                            "this worker's inventory cannot be stored, so `rgrid runtimes` does not show it: there is no stream \
                             {EQUIPMENT}; make room on the disk of nats-server, and restart a service, which makes the stream"
                        );
                    }
                    debug!("cannot publish this worker's inventory: {}", crate::errors::chain(&error));
                }
            }
        }
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return },
            () = context.executors.images_changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether the inventory is to be published: it differs from the last published one, or that was long ago.
fn is_due(published: Option<&(Instant, Equipped)>, equipped: &Equipped, now: Instant) -> bool {
    published.is_none_or(|(at, last)| last != equipped || now.saturating_duration_since(*at) >= CurrentEquipment::REPEAT_AFTER)
}

/// Publishes the inventory, which replaces the last one.
async fn publish(context: &Context, registered_at: DateTime<Utc>, equipped: Equipped) -> Result<(), PublishError> {
    let current = CurrentEquipment { registered_at, equipped };
    let payload = serde_json::to_vec(&current).map_err(|error| PublishError::with_source(PublishErrorKind::Other, error))?;
    let stored = context.js.publish(subjects::equipment(&context.worker), payload.into()).await?;
    stored.await.map(drop)
}

/// Takes the inventory.
async fn take_inventory(context: &Context) -> Equipped {
    let executors = &context.executors;
    let mut interpreters = match &executors.process {
        Ok(process) => process.interpreters().await,
        Err(_) => BTreeMap::new(),
    };
    let (local, platform) = match &executors.docker {
        // A Docker daemon that does not answer has no images now.
        Ok(docker) => (docker.local_images().await.unwrap_or_default(), Some(docker.platform().to_owned())),
        Err(_) => (BTreeMap::new(), None),
    };
    let table = executors.runtimes.table();
    let runtimes = table.iter().map(|(name, runtime)| {
        let equipment = Equipment {
            versions: interpreters.remove(name).unwrap_or_default(),
            images: if platform.is_some() { runtime.images.clone() } else { Vec::new() },
        };
        (name.clone(), equipment)
    });
    let runtimes: BTreeMap<_, _> = runtimes.collect();
    let of_runtimes = |image: &str| runtimes.values().any(|runtime| runtime.images.iter().any(|name| name == image));
    let (first, rest): (Vec<_>, Vec<_>) = local.into_iter().partition(|(name, _)| of_runtimes(name));
    let images = first.into_iter().chain(rest).take(IMAGES_MAX).collect();
    Equipped {
        session: context.session,
        runtimes,
        images,
        platform,
    }
}

#[cfg(test)]
mod tests {
    use bus::ids::SessionId;

    use super::*;

    #[test]
    fn the_inventory_is_published_when_it_changes_and_each_hour_long_before_it_expires() {
        let (now, one) = (
            Instant::now(),
            Equipped {
                session: SessionId::new(),
                runtimes: BTreeMap::new(),
                images: BTreeMap::new(),
                platform: None,
            },
        );
        let other = Equipped {
            platform: Some("linux/amd64".to_owned()),
            ..one.clone()
        };
        assert!(is_due(None, &one, now));
        let published = (now, one.clone());
        assert!(!is_due(Some(&published), &one, now));
        assert!(is_due(Some(&published), &other, now));
        let hour = CurrentEquipment::REPEAT_AFTER;
        assert!(!is_due(Some(&published), &one, now + hour - LOOK_PERIOD));
        assert!(is_due(Some(&published), &one, now + hour));
        assert!(24 * hour < CurrentEquipment::KEPT);
    }
}
