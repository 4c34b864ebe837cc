//! The inbox: submissions that any service published on `rgrid.submit.<namespace>.<queue>`, taken one by one.
//!
//! A message is acknowledged when its job, or its refusal, is stored, and not before. Taken twice, it is the same job: its
//! identity comes from its key, its `Nats-Msg-Id`, or its place in the inbox.

mod answer;
mod take;

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::Message;
use bus::log::{
    INBOX,
    puller::{Error, Patience, Pulled, Puller},
    setup,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::app::Shared;

/// Submissions that are being taken at once.
const AT_ONCE: usize = 256;
/// Submissions that are asked for at once.
const ASK: usize = 64;
/// How long an ask waits on the server.
const EXPIRES: Duration = Duration::from_secs(30);
/// For how long the inbox of a cluster may have no leader before its consumer is made again.
const LEADERLESS_MAX: Duration = Duration::from_secs(30);
/// The pause before a lost consumer is made again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long submissions under way may take when the API stops; after that, the server delivers them again.
const GRACE: Duration = Duration::from_secs(3);

/// Takes submissions until the API stops.
pub(crate) async fn run(app: Shared) {
    let tasks = TaskTracker::new();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut told = false;
    loop {
        tokio::select! {
            () = app.stop.cancelled() => break,
            ended = pull(&app, &room, &tasks) => {
                // Logged once for an outage, which shows in many ways.
                if !std::mem::replace(&mut told, true) {
                    warn!("the inbox cannot be read: {ended}; trying again until it can");
                }
            }
        }
        tokio::select! {
            () = app.stop.cancelled() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        info!("{} submissions are left for the next intake", tasks.len());
    }
}

/// Pulls from the inbox until that fails.
async fn pull(app: &Shared, room: &Arc<Semaphore>, tasks: &TaskTracker) -> String {
    if let Err(error) = setup::intake_consumer(&app.bus.js).await {
        return crate::error::chain(&error);
    }
    match pulling(app, room, tasks).await {
        Ok(words) => words,
        Err(error) => crate::error::chain(&error),
    }
}

async fn pulling(app: &Shared, room: &Arc<Semaphore>, tasks: &TaskTracker) -> Result<String, Error> {
    let mut puller = Puller::new(&app.bus.js, INBOX, vec![setup::INTAKE.to_owned()])
        .await?
        .waiting_for_leaders(LEADERLESS_MAX);
    // Room is taken before a message is asked for.
    let mut free: Vec<OwnedSemaphorePermit> = Vec::new();
    debug!("taking submissions from {INBOX}");
    loop {
        if puller.outstanding(0) == 0 {
            free.clear();
            let Ok(permit) = Arc::clone(room).acquire_owned().await else {
                return Ok("there is no room".to_owned());
            };
            free.push(permit);
            while free.len() < ASK
                && let Ok(permit) = Arc::clone(room).try_acquire_owned()
            {
                free.push(permit);
            }
            puller.ask(0, free.len(), Patience::Expires(EXPIRES)).await?;
        }
        match puller.next().await? {
            Pulled::Message(_, message) => {
                let permit = free.pop();
                let app = Arc::clone(app);
                tasks.spawn(async move {
                    handle(&app, *message).await;
                    drop(permit);
                });
            }
            Pulled::Ended(..) => {}
            Pulled::Gone(_, words) => return Ok(words),
        }
    }
}

async fn handle(app: &Shared, message: Message) {
    let subject = message.subject.clone();
    if let Err(problem) = Box::pin(take::take(app, message)).await {
        debug!("the submission on {subject} is left for later: {}", problem.detail);
    }
}
