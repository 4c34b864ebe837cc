//! The intake: submits the jobs that services publish to the inbox, on `rgrid.submit.<namespace>.<queue>`.
//!
//! A message is acknowledged once its job, or its refusal, is stored. A message that is delivered twice makes one job: the job's id is
//! derived from its key, its `Nats-Msg-Id`, or its sequence in the inbox.

mod answer;
mod process;

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

/// Messages that are processed at the same time.
const IN_FLIGHT: usize = 256;
/// Messages in one pull request.
const PULL_MAX: usize = 64;
/// How long a pull request waits on the server.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How long the inbox of a cluster may be without a leader before its consumer is created again.
const LEADERLESS_MAX: Duration = Duration::from_secs(30);
/// The pause before a lost consumer is created again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long messages in progress may take when the API stops; after that, the server delivers them again.
const GRACE: Duration = Duration::from_secs(3);

/// Processes the inbox until the API stops.
pub(crate) async fn run(app: Shared) {
    let tasks = TaskTracker::new();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut warned = false;
    loop {
        tokio::select! {
            () = app.stop.cancelled() => break,
            ended = pull(&app, &room, &tasks) => {
                // Logged once: an outage shows in many ways.
                if !std::mem::replace(&mut warned, true) {
                    warn!("cannot read the inbox: {ended}; trying again");
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
        info!("{} submissions are left in the inbox for the next start", tasks.len());
    }
}

/// Pulls from the inbox until that fails, and returns why.
async fn pull(app: &Shared, room: &Arc<Semaphore>, tasks: &TaskTracker) -> String {
    if let Err(error) = setup::intake_consumer(&app.bus.js).await {
        return crate::error::chain(&error);
    }
    match pull_messages(app, room, tasks).await {
        Ok(reason) => reason,
        Err(error) => crate::error::chain(&error),
    }
}

async fn pull_messages(app: &Shared, room: &Arc<Semaphore>, tasks: &TaskTracker) -> Result<String, Error> {
    let mut puller = Puller::new(&app.bus.js, INBOX, vec![setup::INTAKE.to_owned()])
        .await?
        .waiting_for_leaders(LEADERLESS_MAX);
    // A permit is taken before a message is requested.
    let mut free: Vec<OwnedSemaphorePermit> = Vec::new();
    debug!("pulling submissions from {INBOX}");
    loop {
        if puller.outstanding(0) == 0 {
            free.clear();
            let Ok(permit) = Arc::clone(room).acquire_owned().await else {
                return Ok("the semaphore is closed".to_owned());
            };
            free.push(permit);
            while free.len() < PULL_MAX
                && let Ok(permit) = Arc::clone(room).try_acquire_owned()
            {
                free.push(permit);
            }
            puller.ask(0, free.len(), Patience::Expires(PULL_EXPIRES)).await?;
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
            Pulled::Gone(_, reason) => return Ok(reason),
        }
    }
}

async fn handle(app: &Shared, message: Message) {
    let subject = message.subject.clone();
    if let Err(problem) = Box::pin(process::process(app, message)).await {
        debug!("the submission on {subject} will be delivered again: {}", problem.detail);
    }
}
