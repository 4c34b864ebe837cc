//! What a worker can run scripts by: kept as the deployment wants it, looked through, and said in the log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{
    runtimes::RuntimesSet,
    stream::{read, sys},
    worker::{Equipment, Equipped, WorkerEvent},
};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::{attempt::Context, presence};

/// How often it is looked through what there is, where nothing says that it changed.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after which what could not be said is said again.
const AGAIN: Duration = Duration::from_secs(5);
/// The most images that are told of: those of the runtimes first.
const IMAGES_MAX: usize = 200;

/// Reads what the deployment says of runtimes now.
///
/// # Errors
/// If the log cannot be read.
pub(crate) async fn learn(context: &Context) -> Result<RuntimesSet, read::Error> {
    let (set, _) = sys::runtimes(&context.js).await?;
    context.executors.runtimes.deployed(&set);
    Ok(set)
}

/// Keeps the runtimes as the deployment has them, and the log informed of what this worker has of them, for as long as it is polled.
pub(crate) async fn keep(context: Arc<Context>) {
    let first = match learn(&context).await {
        Ok(set) => set,
        Err(error) => {
            warn!("cannot read yet which runtimes the deployment has: {}", crate::stage::chain(&error));
            RuntimesSet::default()
        }
    };
    let (known, seen) = watch::channel(Arc::new(first));
    tokio::join!(sys::keep_runtimes(&context.js, &known), tell(&context, seen));
}

async fn tell(context: &Context, mut seen: watch::Receiver<Arc<RuntimesSet>>) {
    let mut said = None;
    loop {
        let set = Arc::clone(&seen.borrow_and_update());
        context.executors.runtimes.deployed(&set);
        let equipped = stock(context).await;
        let mut pause = LOOK;
        if said.as_ref() != Some(&equipped) {
            let event = WorkerEvent::Equipped(equipped.clone());
            match presence::announce(&context.log, &context.worker, event).await {
                Ok(_) => said = Some(equipped),
                Err(error) => {
                    debug!("could not say what this worker has: {}", crate::stage::chain(&error));
                    pause = AGAIN;
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
