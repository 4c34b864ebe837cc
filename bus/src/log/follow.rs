//! Following a stream from a position, in order, without a gap, for as long as one likes.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer};
use bytes::Bytes;
use tracing::{debug, warn};

use super::puller::{Error, Patience, Pulled, Puller};

/// Messages that are under way at once; more are asked for when half of them are left.
const WINDOW: usize = 2_000;
/// Messages that a follower which lingers takes one by one.
const FEW: usize = 8;
/// How long an ask waits on the server.
const EXPIRES: Duration = Duration::from_secs(30);
/// How long the server keeps the consumer of a follower that went away.
const INACTIVE: Duration = Duration::from_secs(60);
/// The pause before a lost consumer is made again.
const PAUSE: Duration = Duration::from_millis(250);

/// A message of a followed stream.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its subject.
    pub subject: String,
    /// Where it stands.
    pub sequence: u64,
    /// What it carries.
    pub payload: Bytes,
    /// Messages of this filter that stood behind it when it was delivered: 0 means that the follower has caught up.
    pub pending: u64,
    /// Its headers, if any.
    pub headers: Option<async_nats::HeaderMap>,
    /// When the server stored it.
    pub stored_at: chrono::DateTime<chrono::Utc>,
}

/// Reads a stream in order from a position. It makes its consumer again, where it left off, whenever the server lost it,
/// the connection broke, or a message is missing.
#[derive(Debug)]
pub struct Follower {
    js: jetstream::Context,
    stream: String,
    filters: Vec<String>,
    /// The sequence to go on from.
    from: u64,
    /// The consumer's own count of what it delivered; a gap in it is a lost message.
    delivered: u64,
    puller: Option<Puller>,
    window: usize,
    pace: Option<Pace>,
}

/// How a follower that lingers asks.
#[derive(Debug)]
struct Pace {
    linger: Duration,
    /// When the first and the last message came since the last ask.
    came: Option<(Instant, Instant)>,
    /// How many came.
    count: usize,
    /// Messages that stood behind the last one.
    behind: u64,
}

impl Pace {
    /// When to ask next, where messages keep coming.
    fn busy_until(&self) -> Option<Instant> {
        let (first, last) = self.came?;
        (self.count >= FEW && last - first < self.linger).then(|| first + self.linger)
    }

    fn asked(&mut self) {
        (self.came, self.count) = (None, 0);
    }

    fn came(&mut self, behind: u64) {
        let now = Instant::now();
        self.came = Some((self.came.map_or(now, |(first, _)| first), now));
        self.count += 1;
        self.behind = behind;
    }
}

impl Follower {
    /// Follows the messages of these filters (all, where there are none) that stand behind sequence `after`.
    ///
    /// One filter, or none: with two that hold wildcards, nats-server 2.15.1 delivers 200 messages a second once a stream has
    /// many subjects, and 30,000 with one (measured over 50,000 subjects).
    #[must_use]
    pub fn new(js: &jetstream::Context, stream: &str, filters: Vec<String>, after: u64) -> Self {
        Self {
            js: js.clone(),
            stream: stream.to_owned(),
            filters,
            from: after + 1,
            delivered: 0,
            puller: None,
            window: WINDOW,
            pace: None,
        }
    }

    /// Lets messages gather for so long where more than a few come in that time, and takes them together; few come at once.
    /// Under load, each message that comes by itself costs the server and us a wake-up, several times its own work.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.pace = Some(Pace {
            linger,
            came: None,
            count: 0,
            behind: 0,
        });
        self
    }

    /// Lets messages gather for so long from now on.
    pub fn set_linger(&mut self, linger: Duration) {
        if let Some(pace) = &mut self.pace {
            pace.linger = linger;
        }
    }

    /// Has at most so many messages (2,000 unless said) under way at once: fewer, where each may be large.
    #[must_use]
    pub const fn window(mut self, most: usize) -> Self {
        self.window = if most < 2 { 2 } else { most };
        self
    }

    /// The next message. Waits for it as long as it takes, over every outage. Loses nothing when dropped half-way.
    pub async fn next(&mut self) -> Followed {
        loop {
            match self.try_next().await {
                Ok(Some(message)) => return message,
                Ok(None) => {}
                Err(error) => {
                    debug!("following {} again: {error}", self.stream);
                    self.puller = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The next message, and with it what else has already come, up to `most`.
    pub async fn chunk(&mut self, most: usize) -> Vec<Followed> {
        let mut chunk = vec![self.next().await];
        while chunk.len() < most {
            let Some(puller) = self.puller.as_mut() else { break };
            let Ok(Some(pulled)) = puller.try_next() else { break };
            let Ok(Some(message)) = self.accept(pulled) else { break };
            chunk.push(message);
        }
        chunk
    }

    async fn try_next(&mut self) -> Result<Option<Followed>, Error> {
        if self.puller.is_none() {
            self.begin().await?;
        }
        let Some(puller) = self.puller.as_mut() else { return Ok(None) };
        let (half, outstanding) = (self.window / 2, puller.outstanding(0));
        match &mut self.pace {
            None if outstanding <= half => puller.ask(0, half, Patience::Expires(EXPIRES)).await?,
            Some(pace) if pace.behind > half as u64 && outstanding <= half => {
                pace.asked();
                puller.ask(0, half, Patience::NoWait).await?;
            }
            Some(pace) if outstanding == 0 => {
                if let Some(until) = pace.busy_until() {
                    tokio::time::sleep_until(until.into()).await;
                    pace.asked();
                    puller.ask(0, half, Patience::NoWait).await?;
                } else {
                    pace.asked();
                    puller.ask(0, FEW, Patience::Expires(EXPIRES)).await?;
                }
            }
            None | Some(_) => {}
        }
        let pulled = puller.next().await?;
        self.accept(pulled)
    }

    fn accept(&mut self, pulled: Pulled) -> Result<Option<Followed>, Error> {
        match pulled {
            Pulled::Message(_, message) => {
                let Ok(info) = message.info() else { return Ok(None) };
                if info.consumer_sequence != self.delivered + 1 {
                    warn!(
                        "a message of {} was lost before {}; reading it again",
                        self.stream, info.stream_sequence
                    );
                    return Err(Error::Closed);
                }
                self.delivered = info.consumer_sequence;
                self.from = info.stream_sequence + 1;
                let stored_at =
                    chrono::DateTime::from_timestamp(info.published.unix_timestamp(), info.published.nanosecond()).unwrap_or_default();
                let (sequence, pending) = (info.stream_sequence, info.pending);
                if let Some(pace) = &mut self.pace {
                    pace.came(pending);
                }
                let message = message.message;
                Ok(Some(Followed {
                    subject: message.subject.to_string(),
                    sequence,
                    payload: message.payload,
                    pending,
                    headers: message.headers,
                    stored_at,
                }))
            }
            Pulled::Ended(_, _) => {
                // Whatever stood behind the last one came, or has to be asked for anew.
                if let Some(pace) = &mut self.pace {
                    pace.behind = 0;
                }
                Ok(None)
            }
            Pulled::Gone(_, words) => {
                debug!("the consumer of {} is gone: {words}", self.stream);
                Err(Error::Closed)
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        let config = consumer::pull::Config {
            deliver_policy: consumer::DeliverPolicy::ByStartSequence { start_sequence: self.from },
            ack_policy: consumer::AckPolicy::None,
            filter_subjects: self.filters.clone(),
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..consumer::pull::Config::default()
        };
        loop {
            match self.js.create_consumer_on_stream(config.clone(), &self.stream).await {
                Ok(made) => {
                    self.delivered = 0;
                    let name = made.cached_info().name.clone();
                    self.puller = Some(Puller::new(&self.js, &self.stream, vec![name]).await?);
                    return Ok(());
                }
                Err(error) => {
                    warn!("cannot follow {} yet ({error}); trying again", self.stream);
                    tokio::time::sleep(PAUSE * 4).await;
                }
            }
        }
    }
}
