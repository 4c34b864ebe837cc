//! What a worker can run scripts by: kept as the deployment wants it, looked through, and said on a stream that keeps the last word of
//! each worker. It is not said in the log, which would keep every word for ever (decision 0014).

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

/// How often it is looked through what there is, where nothing says that it changed.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after which what could not be said is said again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it must turn out that the stream is missing before the operator is told.
const MISSING: u32 = 2;
/// The most images that are told of: those of the runtimes first.
const IMAGES_MAX: usize = 200;

/// Keeps the runtimes as the deployment has them, and says what this worker has of them, for as long as it is polled. Its session was
/// registered at this time.
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
    tokio::join!(sys::keep_runtimes(&context.js, &known), tell(&context, registered_at, seen));
}

async fn tell(context: &Context, registered_at: DateTime<Utc>, mut seen: watch::Receiver<Arc<RuntimesSet>>) {
    let (mut said, mut missed) = (None, 0_u32);
    loop {
        let set = Arc::clone(&seen.borrow_and_update());
        context.executors.runtimes.deployed(&set);
        let equipped = stock(context).await;
        let mut pause = LOOK;
        if is_due(said.as_ref(), &equipped, Instant::now()) {
            match say(context, registered_at, equipped.clone()).await {
                Ok(()) => (said, missed) = (Some((Instant::now(), equipped)), 0),
                Err(error) => {
                    pause = AGAIN;
                    // A server that comes up says so too, for a moment.
                    missed += u32::from(error.kind() == PublishErrorKind::StreamNotFound);
                    if missed == MISSING {
                        warn!(
                            "nobody keeps what this worker has to run scripts by, so `rgrid runtimes` does not show it: there is no stream \
                             {EQUIPMENT}; make room on the disk of nats-server, and restart a service, which makes the stream"
                        );
                    }
                    debug!("could not say what this worker has: {}", crate::errors::chain(&error));
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

/// Whether it is to be said what there is: where it is not what was said last, or that was long ago.
fn is_due(said: Option<&(Instant, Equipped)>, equipped: &Equipped, now: Instant) -> bool {
    said.is_none_or(|(at, last)| last != equipped || now.saturating_duration_since(*at) >= CurrentEquipment::REPEAT_AFTER)
}

/// Says what there is, in the place of what was said before.
async fn say(context: &Context, registered_at: DateTime<Utc>, equipped: Equipped) -> Result<(), PublishError> {
    let current = CurrentEquipment { registered_at, equipped };
    let payload = serde_json::to_vec(&current).map_err(|error| PublishError::with_source(PublishErrorKind::Other, error))?;
    let stored = context.js.publish(subjects::equipment(&context.worker), payload.into()).await?;
    stored.await.map(drop)
}

/// Looks through what there is.
async fn stock(context: &Context) -> Equipped {
    let executors = &context.executors;
    let mut interpreters = match &executors.process {
        Ok(process) => process.interpreters().await,
        Err(_) => BTreeMap::new(),
    };
    let (local, platform) = match &executors.docker {
        // A daemon that does not answer has none just now.
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
    fn it_is_said_when_it_changes_and_each_hour_long_before_it_is_forgotten() {
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
        let said = (now, one.clone());
        assert!(!is_due(Some(&said), &one, now));
        assert!(is_due(Some(&said), &other, now));
        let hour = CurrentEquipment::REPEAT_AFTER;
        assert!(!is_due(Some(&said), &one, now + hour - LOOK));
        assert!(is_due(Some(&said), &one, now + hour));
        assert!(24 * hour < CurrentEquipment::KEPT);
    }
}
