//! The live output of attempts: one plain NATS subscription for all clients that follow the same attempt.
//!
//! Plain NATS may lose messages. A message carries its offset in the attempt's log, so that a gap shows, and is read from the stream.

use std::{collections::HashMap, sync::Arc};

use async_nats::{Client, Message, SubscribeError};
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many messages, of a MiB at most, a follower may lag behind before it reads from the stream instead.
const CAPACITY: usize = 32;

/// The attempts that are followed.
#[derive(Debug)]
pub(crate) struct Tails {
    client: Client,
    /// Owns the subscriptions.
    tasks: TaskTracker,
    /// Ends all subscriptions.
    stop: CancellationToken,
    /// By the subject that each attempt's log is published on.
    followed: Mutex<HashMap<String, Followed>>,
}

#[derive(Debug)]
struct Followed {
    messages: broadcast::Sender<Arc<Message>>,
    /// Ends the subscription.
    over: CancellationToken,
}

/// The output of one attempt from now on.
#[derive(Debug)]
pub(super) struct Tail {
    subject: String,
    messages: broadcast::Receiver<Arc<Message>>,
    of: Arc<Tails>,
}

/// Messages were missed: read them from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missed;

impl Tails {
    pub(crate) fn new(client: Client, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self {
            client,
            tasks,
            stop,
            followed: Mutex::default(),
        }
    }

    /// Follows a subject: follow first, then read the stream.
    ///
    /// # Errors
    /// If the connection is closed permanently.
    pub(super) async fn follow(self: &Arc<Self>, subject: String) -> Result<Tail, SubscribeError> {
        if let Some(followed) = self.followed.lock().get(&subject) {
            return Ok(self.tail(&subject, followed.messages.subscribe()));
        }
        let mut subscription = self.client.subscribe(subject.clone()).await?;
        let mut tails = self.followed.lock();
        // Another request may have subscribed in the meantime.
        if let Some(followed) = tails.get(&subject) {
            return Ok(self.tail(&subject, followed.messages.subscribe()));
        }
        let (messages, receiver) = broadcast::channel(CAPACITY);
        let over = self.stop.child_token();
        let (sender, ended) = (messages.clone(), over.clone());
        self.tasks.spawn(ended.run_until_cancelled_owned(async move {
            while let Some(message) = subscription.next().await {
                let _no_receiver = sender.send(Arc::new(message));
            }
        }));
        tails.insert(subject.clone(), Followed { messages, over });
        drop(tails);
        Ok(self.tail(&subject, receiver))
    }

    fn tail(self: &Arc<Self>, subject: &str, messages: broadcast::Receiver<Arc<Message>>) -> Tail {
        Tail {
            subject: subject.to_owned(),
            messages,
            of: Arc::clone(self),
        }
    }
}

impl Tail {
    /// The next message. May be dropped half-way without losing one.
    pub(super) async fn next(&mut self) -> Result<Arc<Message>, Missed> {
        match self.messages.recv().await {
            Ok(message) => Ok(message),
            Err(broadcast::error::RecvError::Lagged(_)) => Err(Missed),
            // The connection is closed permanently: the API stops.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut tails = self.of.followed.lock();
        // The receiver of this tail is still counted.
        if tails
            .get(&self.subject)
            .is_some_and(|followed| followed.messages.receiver_count() <= 1)
            && let Some(followed) = tails.remove(&self.subject)
        {
            followed.over.cancel();
        }
    }
}
