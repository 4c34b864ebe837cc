//! Pulling from consumers over one subscription: many requests at once, to many consumers, each with a time limit.
//!
//! async-nats 0.51 offers streams that can lose count of pending messages and then freeze for 35 s (`messages()`), and batches that
//! subscribe again for each pull (`batch()`). Dispatch needs neither: it requests one message at a time from a dozen consumers, some
//! without waiting. So this module sends its own pull requests.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_nats::{
    Client, HeaderValue, StatusCode, Subscriber,
    jetstream::{self, Message},
};
use futures::StreamExt as _;
use serde_json::json;
use tracing::debug;

use super::connect::{connection, connects};

/// How long after its own time limit a request is given up, if the server did not report its end. A reconnect drops requests.
const GRACE: Duration = Duration::from_secs(1);
/// In a cluster, the server of a consumer may die while our connection, to another server, stays alive. So every long request asks for a
/// heartbeat at this interval, and counts as lost after two missed heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(1_500);
/// How often a wait checks whether the connection was made again. A restarted server does not know earlier requests and does not report
/// them: a follower that had requested with a limit of 30 s received nothing for 31 s (measured).
const CHECK: Duration = Duration::from_millis(500);

/// Pulling failed, and another request does not help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subscription for the answers failed.
    #[error("cannot subscribe for pulled messages")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// The request could not be sent.
    #[error("cannot ask consumer {consumer} for messages")]
    Ask {
        /// The consumer.
        consumer: String,
        /// The error.
        #[source]
        source: async_nats::PublishError,
    },
    /// The connection is closed permanently.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// How long a request waits on the server if there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The request does not wait.
    NoWait,
    /// The request waits this long.
    Expires(Duration),
}

/// The result of a request.
#[derive(Debug)]
pub enum Pulled {
    /// A message of the consumer with this index.
    Message(usize, Box<Message>),
    /// The request to this consumer ended. This many messages were not delivered.
    Ended(usize, usize),
    /// The server reports that this consumer does not exist, or has changed.
    Gone(usize, String),
}

#[derive(Debug)]
struct Request {
    consumer: usize,
    left: usize,
    deadline: Instant,
    /// When the request counts as lost, unless the server sends a heartbeat before. Only in a cluster.
    silent_at: Option<Instant>,
    /// The number of the connection over which the request was sent.
    connection: u64,
}

/// Requests messages from consumers of one stream.
#[derive(Debug)]
pub struct Puller {
    client: Client,
    context: jetstream::Context,
    stream: String,
    consumers: Vec<String>,
    inbox: String,
    answers: Subscriber,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    /// Whether the server is part of a cluster.
    clustered: bool,
    /// How long to wait for a consumer without a leader.
    leaderless_max: Duration,
    /// Since when a consumer has had no leader.
    leaderless: BTreeMap<usize, Instant>,
    /// When lost requests were last looked for.
    last_check: Instant,
}

impl Puller {
    /// Prepares requests to these consumers. From now on, each consumer is identified by its index.
    ///
    /// # Errors
    /// If the subscription for the answers fails.
    pub async fn new(context: &jetstream::Context, stream: &str, consumers: Vec<String>) -> Result<Self, Error> {
        let client = context.client();
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await.map_err(Error::Subscribe)?;
        Ok(Self {
            clustered: client.server_info().cluster.is_some(),
            leaderless_max: Duration::ZERO,
            leaderless: BTreeMap::new(),
            client,
            context: context.clone(),
            stream: stream.to_owned(),
            consumers,
            inbox,
            answers,
            requests: BTreeMap::new(),
            next_request: 0,
            last_check: Instant::now(),
        })
    }

    /// Waits this long for a consumer without a leader, as in a cluster between the loss of a leader and the next election. Only for
    /// replicated consumers: any other consumer is gone with its server.
    #[must_use]
    pub const fn waiting_for_leaders(mut self, most: Duration) -> Self {
        self.leaderless_max = most;
        self
    }

    /// How many requested messages this consumer has not delivered yet.
    #[must_use]
    pub fn outstanding(&self, consumer: usize) -> usize {
        self.requests
            .values()
            .filter(|request| request.consumer == consumer)
            .map(|request| request.left)
            .sum()
    }

    /// Requests up to `count` messages from a consumer.
    ///
    /// # Errors
    /// If the request cannot be sent.
    pub async fn ask(&mut self, consumer: usize, count: usize, patience: Patience) -> Result<(), Error> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (mut body, wait) = match patience {
            Patience::NoWait => (json!({ "batch": count, "no_wait": true }), GRACE),
            Patience::Expires(expires) => (json!({ "batch": count, "expires": nanos(expires) }), expires + GRACE),
        };
        // The server refuses a heartbeat that is longer than half of the wait.
        let with_heartbeat = self.clustered && matches!(patience, Patience::Expires(expires) if expires >= HEARTBEAT * 3);
        if with_heartbeat {
            body["idle_heartbeat"] = nanos(HEARTBEAT).into();
        }
        let connection = connection(&self.client);
        let name = &self.consumers[consumer];
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", self.stream);
        let reply = format!("{}.{}", self.inbox, self.next_request);
        self.client
            .publish_with_reply(subject, reply, body.to_string().into())
            .await
            .map_err(|source| Error::Ask {
                consumer: name.clone(),
                source,
            })?;
        self.requests.insert(
            self.next_request,
            Request {
                consumer,
                left: count,
                deadline: Instant::now() + wait,
                silent_at: with_heartbeat.then(|| Instant::now() + HEARTBEAT * 2),
                connection,
            },
        );
        self.next_request += 1;
        Ok(())
    }

    /// The next result of a request. Waits without a time limit if there is no request. Cancel safe: no message is lost.
    ///
    /// # Errors
    /// If the connection is closed permanently.
    pub async fn next(&mut self) -> Result<Pulled, Error> {
        loop {
            // This is checked even while messages keep arriving: requests to another consumer may be lost.
            if self.last_check.elapsed() >= CHECK {
                if let Some(request) = self.lost_request() {
                    return Ok(Pulled::Ended(request.consumer, request.left));
                }
                self.last_check = Instant::now();
            }
            let message = if self.requests.is_empty() {
                self.answers.next().await
            } else {
                let look = self.last_check + CHECK;
                let Ok(message) = tokio::time::timeout_at(look.into(), self.answers.next()).await else {
                    continue;
                };
                message
            };
            if let Some(pulled) = self.take(message.ok_or(Error::Closed)?) {
                return Ok(pulled);
            }
        }
    }

    /// A request that will not be answered: its connection is gone, or its answer is long overdue.
    fn lost_request(&mut self) -> Option<Request> {
        let (now, connection) = (Instant::now(), connects(&self.client));
        let silent = |request: &Request| request.silent_at.is_some_and(|at| at <= now);
        let gone = |request: &Request| request.deadline <= now || request.connection < connection || silent(request);
        let id = *self.requests.iter().find(|(_, request)| gone(request))?.0;
        let request = self.requests.remove(&id)?;
        debug!(
            "no answer to a request to {}; its server or the connection lost it",
            self.consumers[request.consumer]
        );
        Some(request)
    }

    /// A result that has already arrived, without waiting.
    ///
    /// # Errors
    /// If the connection is closed permanently.
    pub fn try_next(&mut self) -> Result<Option<Pulled>, Error> {
        use futures::FutureExt as _;
        loop {
            match self.answers.next().now_or_never() {
                None => return Ok(None),
                Some(message) => {
                    if let Some(pulled) = self.take(message.ok_or(Error::Closed)?) {
                        return Ok(Some(pulled));
                    }
                }
            }
        }
    }

    fn take(&mut self, message: async_nats::Message) -> Option<Pulled> {
        let Some(status) = message.status else {
            return self.delivered(message);
        };
        let id: u64 = message.subject.rsplit_once('.')?.1.parse().ok()?;
        match status {
            StatusCode::IDLE_HEARTBEAT => {
                self.note_answer(id);
                None
            }
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                self.note_answer(id);
                let request = self.requests.remove(&id)?;
                Some(Pulled::Ended(request.consumer, request.left))
            }
            StatusCode::NO_RESPONDERS if self.may_get_leader(id) => None,
            _ => {
                let request = self.requests.remove(&id)?;
                let words = message.description.unwrap_or_else(|| status.to_string());
                // "Exceeded MaxWaiting" and similar errors pass. A deleted consumer does not come back.
                if words.contains("Consumer Deleted") || status == StatusCode::NO_RESPONDERS {
                    Some(Pulled::Gone(request.consumer, words))
                } else {
                    debug!("{} ended a request: {words}", self.consumers[request.consumer]);
                    Some(Pulled::Ended(request.consumer, request.left))
                }
            }
        }
    }

    /// The server sent a heartbeat or a message for this request.
    fn note_answer(&mut self, id: u64) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        self.leaderless.remove(&request.consumer);
        if let Some(silent_at) = request.silent_at.as_mut() {
            *silent_at = Instant::now() + HEARTBEAT * 2;
        }
    }

    /// No server answers for the consumer of this request. If a leader may be elected soon, the request stays, and counts as lost at the
    /// next check. So the caller requests again twice a second, and not in a busy loop.
    fn may_get_leader(&mut self, id: u64) -> bool {
        let now = Instant::now();
        let Some(request) = self.requests.get_mut(&id).filter(|_| self.clustered) else {
            return false;
        };
        let since = *self.leaderless.entry(request.consumer).or_insert(now);
        request.silent_at = Some(now);
        let waits = now.saturating_duration_since(since) < self.leaderless_max;
        if !waits {
            self.leaderless.remove(&request.consumer);
        }
        waits
    }

    /// A message arrived. It belongs to the oldest request to its consumer.
    fn delivered(&mut self, message: async_nats::Message) -> Option<Pulled> {
        let message = Message {
            message,
            context: self.context.clone(),
        };
        let consumer = message.info().ok()?.consumer.to_owned();
        let consumer = self.consumers.iter().position(|name| *name == consumer)?;
        let oldest = self
            .requests
            .iter_mut()
            .find(|(_, request)| request.consumer == consumer)
            .map(|(id, request)| {
                request.left -= 1;
                (*id, request.left)
            });
        match oldest {
            Some((id, 0)) => {
                self.note_answer(id);
                self.requests.remove(&id);
            }
            // The server sends no heartbeats while it sends messages.
            Some((id, _)) => self.note_answer(id),
            None => {}
        }
        Some(Pulled::Message(consumer, Box::new(message)))
    }
}

/// The value of a message's header, as text.
#[must_use]
pub fn header<'a>(message: &'a async_nats::Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(HeaderValue::as_str)
}
