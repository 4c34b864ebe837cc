//! Pulling from consumers over one subscription: many asks under way, to many consumers, each bounded in time.
//!
//! async-nats 0.51 offers streams that can lose count of what is pending and then freeze for 35 s (`messages()`), and
//! batches that subscribe anew for every pull (`batch()`). Dispatch needs neither: it asks for one message at a time, of a
//! dozen consumers, some without waiting. So the pull requests are our own, a screenful.

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

/// How much later than its own expiry an ask is given up when the server never said that it ended: a reconnect drops it.
const GRACE: Duration = Duration::from_secs(1);
/// In a cluster, the server that holds a consumer may die while our own connection, to another one, lives. So every ask that
/// waits long asks for a sign of life this often, and is taken for forgotten when two of them did not come.
const HEARTBEAT: Duration = Duration::from_millis(1_500);
/// How often a wait looks whether the connection was made anew. A restarted server knows nothing of what it was asked, and says
/// nothing of it: a follower that had asked for 30 s of patience was deaf for 31 (measured).
const LOOK: Duration = Duration::from_millis(500);

/// Pulling failed in a way that asking again does not mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subscription for the answers could not be made.
    #[error("cannot subscribe for pulled messages")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// The request could not be sent.
    #[error("cannot ask consumer {consumer} for messages")]
    Ask {
        /// Which consumer.
        consumer: String,
        /// What happened.
        #[source]
        source: async_nats::PublishError,
    },
    /// The connection is closed for good.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// How long an ask waits on the server where nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    NoWait,
    /// So long.
    Expires(Duration),
}

/// What came of an ask.
#[derive(Debug)]
pub enum Pulled {
    /// A message, of the consumer with this index.
    Message(usize, Box<Message>),
    /// The ask to this consumer ended, with this many messages not delivered.
    Ended(usize, usize),
    /// The server says that this consumer is not there, or not as it was.
    Gone(usize, String),
}

#[derive(Debug)]
struct Ask {
    consumer: usize,
    left: usize,
    deadline: Instant,
    /// When it is taken for forgotten, unless the server gives a sign of life before; only in a cluster.
    silent_at: Option<Instant>,
    /// The connection that it goes over, by its number.
    connection: u64,
}

/// Asks consumers of one stream for messages.
#[derive(Debug)]
pub struct Puller {
    client: Client,
    context: jetstream::Context,
    stream: String,
    consumers: Vec<String>,
    inbox: String,
    answers: Subscriber,
    asks: BTreeMap<u64, Ask>,
    next_ask: u64,
    /// Whether the server is one of several.
    clustered: bool,
    /// For how long a consumer that nobody speaks for is waited for.
    leaderless_max: Duration,
    /// Since when nobody speaks for a consumer.
    leaderless: BTreeMap<usize, Instant>,
    /// When it was last looked whether asks were forgotten.
    looked: Instant,
}

impl Puller {
    /// Gets ready to ask these consumers; they are spoken of by their index from now on.
    ///
    /// # Errors
    /// If the answers cannot be subscribed to.
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
            asks: BTreeMap::new(),
            next_ask: 0,
            looked: Instant::now(),
        })
    }

    /// Waits for so long where nobody speaks for a consumer, as in a cluster between the loss of its leader and the election of
    /// the next. It is for consumers that are replicated; any other is gone with its server.
    #[must_use]
    pub const fn waiting_for_leaders(mut self, most: Duration) -> Self {
        self.leaderless_max = most;
        self
    }

    /// How many messages this consumer still owes us.
    #[must_use]
    pub fn outstanding(&self, consumer: usize) -> usize {
        self.asks.values().filter(|ask| ask.consumer == consumer).map(|ask| ask.left).sum()
    }

    /// Asks a consumer for up to `count` messages.
    ///
    /// # Errors
    /// If the request cannot be sent.
    pub async fn ask(&mut self, consumer: usize, count: usize, patience: Patience) -> Result<(), Error> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (mut request, wait) = match patience {
            Patience::NoWait => (json!({ "batch": count, "no_wait": true }), GRACE),
            Patience::Expires(expires) => (json!({ "batch": count, "expires": nanos(expires) }), expires + GRACE),
        };
        // The server refuses a heartbeat that is not at most half of the wait.
        let beats = self.clustered && matches!(patience, Patience::Expires(expires) if expires >= HEARTBEAT * 3);
        if beats {
            request["idle_heartbeat"] = nanos(HEARTBEAT).into();
        }
        let connection = connection(&self.client);
        let name = &self.consumers[consumer];
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", self.stream);
        let reply = format!("{}.{}", self.inbox, self.next_ask);
        self.client
            .publish_with_reply(subject, reply, request.to_string().into())
            .await
            .map_err(|source| Error::Ask {
                consumer: name.clone(),
                source,
            })?;
        self.asks.insert(
            self.next_ask,
            Ask {
                consumer,
                left: count,
                deadline: Instant::now() + wait,
                silent_at: beats.then(|| Instant::now() + HEARTBEAT * 2),
                connection,
            },
        );
        self.next_ask += 1;
        Ok(())
    }

    /// The next thing that comes of what was asked. Waits for ever where nothing was. Loses nothing when dropped half-way.
    ///
    /// # Errors
    /// If the connection is closed for good.
    pub async fn next(&mut self) -> Result<Pulled, Error> {
        loop {
            // Also while messages keep coming: the asks to another consumer may be gone.
            if self.looked.elapsed() >= LOOK {
                if let Some(ask) = self.forgotten() {
                    return Ok(Pulled::Ended(ask.consumer, ask.left));
                }
                self.looked = Instant::now();
            }
            let message = if self.asks.is_empty() {
                self.answers.next().await
            } else {
                let look = self.looked + LOOK;
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

    /// An ask that nobody will answer: it went over a connection that is gone, or is long overdue.
    fn forgotten(&mut self) -> Option<Ask> {
        let (now, connection) = (Instant::now(), connects(&self.client));
        let silent = |ask: &Ask| ask.silent_at.is_some_and(|at| at <= now);
        let gone = |ask: &Ask| ask.deadline <= now || ask.connection < connection || silent(ask);
        let id = *self.asks.iter().find(|(_, ask)| gone(ask))?.0;
        let ask = self.asks.remove(&id)?;
        debug!(
            "no word about an ask to {}; its server or the connection dropped it",
            self.consumers[ask.consumer]
        );
        Some(ask)
    }

    /// What has already come, without waiting for more.
    ///
    /// # Errors
    /// If the connection is closed for good.
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
                self.lives(id);
                None
            }
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                self.lives(id);
                let ask = self.asks.remove(&id)?;
                Some(Pulled::Ended(ask.consumer, ask.left))
            }
            StatusCode::NO_RESPONDERS if self.may_get_a_leader(id) => None,
            _ => {
                let ask = self.asks.remove(&id)?;
                let words = message.description.unwrap_or_else(|| status.to_string());
                // "Exceeded MaxWaiting" and the like pass; a deleted consumer does not.
                if words.contains("Consumer Deleted") || status == StatusCode::NO_RESPONDERS {
                    Some(Pulled::Gone(ask.consumer, words))
                } else {
                    debug!("{} ended an ask: {words}", self.consumers[ask.consumer]);
                    Some(Pulled::Ended(ask.consumer, ask.left))
                }
            }
        }
    }

    /// The server knows of this ask.
    fn lives(&mut self, id: u64) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        self.leaderless.remove(&ask.consumer);
        if let Some(silent_at) = ask.silent_at.as_mut() {
            *silent_at = Instant::now() + HEARTBEAT * 2;
        }
    }

    /// Nobody speaks for the consumer of this ask. Where somebody may in a moment, the ask stays, to be found forgotten at the
    /// next look, so that whoever asks again does so twice a second and not at once.
    fn may_get_a_leader(&mut self, id: u64) -> bool {
        let now = Instant::now();
        let Some(ask) = self.asks.get_mut(&id).filter(|_| self.clustered) else {
            return false;
        };
        let since = *self.leaderless.entry(ask.consumer).or_insert(now);
        ask.silent_at = Some(now);
        let waits = now.saturating_duration_since(since) < self.leaderless_max;
        if !waits {
            self.leaderless.remove(&ask.consumer);
        }
        waits
    }

    /// A message came: it is one of those that the oldest ask to its consumer waits for.
    fn delivered(&mut self, message: async_nats::Message) -> Option<Pulled> {
        let message = Message {
            message,
            context: self.context.clone(),
        };
        let consumer = message.info().ok()?.consumer.to_owned();
        let consumer = self.consumers.iter().position(|name| *name == consumer)?;
        let oldest = self.asks.iter_mut().find(|(_, ask)| ask.consumer == consumer).map(|(id, ask)| {
            ask.left -= 1;
            (*id, ask.left)
        });
        match oldest {
            Some((id, 0)) => {
                self.lives(id);
                self.asks.remove(&id);
            }
            // The server sends no sign of life while it sends messages.
            Some((id, _)) => self.lives(id),
            None => {}
        }
        Some(Pulled::Message(consumer, Box::new(message)))
    }
}

/// The value of a header as text, for messages that carry one.
#[must_use]
pub fn header<'a>(message: &'a async_nats::Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(HeaderValue::as_str)
}
