//! Follows the broker's reports of connections. Only the broker's system account receives them.

use std::{collections::VecDeque, time::Duration};

use async_nats::{Client, Message, Subscriber, connection::State};
use bus::{
    ids::{SessionId, WorkerId},
    log::connect::{self, Bus},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, timeout_at},
};
use tracing::{debug, info, warn};

use crate::{connections::Connection, error::chain, observation::SessionKey};

/// How often the listener checks whether its own client has reconnected.
const CHECK_PERIOD: Duration = Duration::from_millis(100);
/// How often every server is pinged.
const PING_PERIOD: Duration = Duration::from_millis(500);
/// The last pings, whose answers count. An answer to an older one comes from a server that was frozen.
const PINGS: usize = 8;
/// How long the servers may take to list their connections.
const LISTING: Duration = Duration::from_millis(500);
/// The most connections that a server is to list.
const LISTED: usize = 16_384;
/// The pause before the next try after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The reasons for which a connection ends when its client ends. For other reasons, the server ended it: it stops, or its client is too
/// slow.
const CLIENT_REASONS: [&str; 3] = ["Client Closed", "Read Error", "Write Error"];

/// What the broker reports.
#[derive(Debug)]
pub(crate) enum ConnectionNews {
    /// From now on its reports are received, over this client's connection. Earlier ones were missed.
    Listening(Client),
    /// A session is connected, since then by its server's clock.
    Connected(SessionKey, Connection, DateTime<Utc>),
    /// This server answered a ping that was sent at that moment.
    ServerAnswered(String, std::time::Instant),
    /// A session's connection ended, and whether for a reason that may be its runner's death.
    Disconnected(SessionKey, Connection, bool),
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct UserInfo {
    account: String,
}

#[derive(Deserialize)]
struct Listing {
    server_id: String,
    #[serde(default)]
    connections: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    cid: u64,
    start: DateTime<Utc>,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Advisory {
    server: Server,
    client: ClientInfo,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct ClientInfo {
    id: u64,
    start: DateTime<Utc>,
    #[serde(default)]
    name: String,
}

/// Listens until the receiver of `news` is closed. Waits for a broker that does not answer, or does not accept the credentials.
pub(crate) async fn listen(bus: Bus, urls: String, news: mpsc::Sender<ConnectionNews>) {
    let account = account_of(&bus).await;
    let client = match connect::patiently(&urls, "watcher/system").await {
        Ok(system) => system.client,
        Err(error) => {
            warn!(
                "cannot listen for disconnected runners: {}; dead runners are noticed by their heartbeats alone",
                chain(&error)
            );
            return;
        }
    };
    // One subscription for connects and disconnects, so that they come in their order.
    let subject = format!("$SYS.ACCOUNT.{account}.*");
    loop {
        let inbox = client.new_inbox();
        match (
            client.subscribe(subject.clone()).await,
            client.subscribe(format!("{inbox}.*")).await,
        ) {
            (Ok(advisories), Ok(answers)) => {
                let listener = Listener {
                    client: &client,
                    account: &account,
                    pings: Pings::new(inbox),
                    news: &news,
                };
                if listener.follow(advisories, answers).await.is_none() {
                    return;
                }
            }
            (Err(error), _) | (_, Err(error)) => debug!("cannot listen for disconnected runners yet: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Listener<'a> {
    client: &'a Client,
    account: &'a str,
    pings: Pings,
    news: &'a mpsc::Sender<ConnectionNews>,
}

impl Listener<'_> {
    /// Returns nothing once the receiver is closed, and something to subscribe again.
    async fn follow(mut self, mut advisories: Subscriber, mut answers: Subscriber) -> Option<()> {
        let (mut checks, mut ping_times) = (tokio::time::interval(CHECK_PERIOD), tokio::time::interval(PING_PERIOD));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping_times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut listed_for = None;
        loop {
            let reported = tokio::select! {
                message = advisories.next() => match message {
                    Some(message) => read(&message),
                    None => return Some(()),
                },
                message = answers.next() => match message {
                    Some(message) => self.pings.answered(&message),
                    None => return Some(()),
                },
                _ = ping_times.tick() => {
                    let reply = self.pings.next();
                    // A ping that cannot be sent counts as one without an answer.
                    let _unsent = self.client.publish_with_reply("$SYS.REQ.SERVER.PING.IDZ", reply, Bytes::new()).await;
                    None
                }
                _ = checks.tick() => {
                    self.list_again(&mut listed_for).await?;
                    None
                }
            };
            if let Some(reported) = reported {
                self.news.send(reported).await.ok()?;
            }
        }
    }

    /// Lists all connections again after a reconnect: reports were missed meanwhile.
    async fn list_again(&self, listed_for: &mut Option<u64>) -> Option<()> {
        let connects = connects(self.client);
        if connects.is_none() || connects == *listed_for {
            return Some(());
        }
        match list(self.client, self.account).await {
            Ok(listed) => {
                if listed_for.is_none() {
                    info!("listening for disconnected runners: the jobs of a dead runner run elsewhere within 1 s");
                }
                *listed_for = connects;
                self.news.send(ConnectionNews::Listening(self.client.clone())).await.ok()?;
                for one in listed {
                    self.news.send(one).await.ok()?;
                }
            }
            Err(error) => debug!("the broker does not list its connections yet: {error}"),
        }
        Some(())
    }
}

/// The pings of all servers, each with its own subject for the answers.
struct Pings {
    inbox: String,
    count: u64,
    /// When the last ones were sent, by their numbers.
    sent: VecDeque<(u64, std::time::Instant)>,
}

impl Pings {
    const fn new(inbox: String) -> Self {
        Self {
            inbox,
            count: 0,
            sent: VecDeque::new(),
        }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        self.sent.push_back((self.count, std::time::Instant::now()));
        if self.sent.len() > PINGS {
            self.sent.pop_front();
        }
        format!("{}.{}", self.inbox, self.count)
    }

    fn answered(&self, message: &Message) -> Option<ConnectionNews> {
        let number = message.subject.rsplit('.').next()?.parse::<u64>().ok()?;
        let (_, sent) = self.sent.iter().find(|(count, _)| *count == number)?;
        let server = parsed::<Server>(message).ok()?;
        Some(ConnectionNews::ServerAnswered(server.id, *sent))
    }
}

/// How often this client has connected, if it is connected now.
pub(crate) fn connects(client: &Client) -> Option<u64> {
    let connects = client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed);
    (client.connection_state() == State::Connected).then_some(connects)
}

/// The account of the grid. Connections of other accounts are not its workers', whatever their names.
async fn account_of(bus: &Bus) -> String {
    loop {
        match bus.client.request("$SYS.REQ.USER.INFO", Bytes::new()).await {
            Ok(message) => match serde_json::from_slice::<Answer<UserInfo>>(&message.payload) {
                Ok(answer) => return answer.data.account,
                Err(error) => warn!("the broker does not name the account: {error}"),
            },
            Err(error) => debug!("the broker does not name the account yet: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The connections of every session on every server.
async fn list(client: &Client, account: &str) -> Result<Vec<ConnectionNews>, Box<dyn std::error::Error + Send + Sync>> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let ask = json!({ "acc": account, "limit": LISTED }).to_string();
    client.publish_with_reply("$SYS.REQ.SERVER.PING.CONNZ", inbox, ask.into()).await?;
    client.flush().await?;
    let deadline = Instant::now() + LISTING;
    let mut listed = Vec::new();
    while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
        let listing = parsed::<Answer<Listing>>(&answer)?.data;
        for one in listing.connections {
            let server = listing.server_id.clone();
            let connection = Connection { server, client: one.cid };
            listed.extend(session_of(&one.name).map(|key| ConnectionNews::Connected(key, connection, one.start)));
        }
    }
    Ok(listed)
}

fn read(message: &Message) -> Option<ConnectionNews> {
    let ended = match message.subject.rsplit('.').next()? {
        "CONNECT" => false,
        "DISCONNECT" => true,
        _ => return None,
    };
    let advisory = match parsed::<Advisory>(message) {
        Ok(advisory) => advisory,
        Err(error) => {
            debug!("an advisory on {} cannot be read: {error}", message.subject);
            return None;
        }
    };
    let key = session_of(&advisory.client.name)?;
    let connection = Connection {
        server: advisory.server.id,
        client: advisory.client.id,
    };
    Some(if ended {
        let by_client = advisory.reason.is_none_or(|reason| CLIENT_REASONS.contains(&&*reason));
        ConnectionNews::Disconnected(key, connection, by_client)
    } else {
        ConnectionNews::Connected(key, connection, advisory.client.start)
    })
}

fn parsed<T: DeserializeOwned>(message: &Message) -> serde_json::Result<T> {
    serde_json::from_slice(&message.payload)
}

/// The session of a connection: a runner names its connection `worker/<id>/<session>`. A name with more parts is a connection for files.
fn session_of(name: &str) -> Option<SessionKey> {
    let mut parts = name.split('/');
    let (kind, worker, session) = (parts.next()?, parts.next()?, parts.next()?);
    if kind != "worker" || parts.next().is_some() {
        return None;
    }
    Some((worker.parse::<WorkerId>().ok()?, session.parse::<SessionId>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_from_its_ping_and_an_old_one_does_not() {
        let mut pings = Pings::new("inbox".to_owned());
        let message = |subject: String| Message {
            subject: subject.into(),
            reply: None,
            payload: json!({ "name": "n", "host": "127.0.0.1", "id": "NBS7" }).to_string().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let first = pings.next();
        let answered = |pings: &Pings, reply: &str| pings.answered(&message(reply.to_owned())).is_some();
        assert!(answered(&pings, &first) && !answered(&pings, "inbox.7") && !answered(&pings, "inbox.x"));
        for _ in 0..PINGS {
            pings.next();
        }
        assert!(
            !answered(&pings, &first),
            "a server that went on after a freeze answers everything at once"
        );
    }

    #[test]
    fn only_a_sessions_own_connection_speaks_for_it() {
        let session = SessionId::new();
        assert_eq!(
            session_of(&format!("worker/desk-1/{session}")),
            Some(("desk-1".parse().expect("a token"), session))
        );
        for name in [
            format!("worker/desk-1/{session}/files"),
            format!("watcher/desk-1/{session}"),
            "worker/desk-1/7".to_owned(),
            "worker/desk-1".to_owned(),
            format!("worker/a b/{session}"),
            String::new(),
        ] {
            assert_eq!(session_of(&name), None, "{name}");
        }
    }

    /// As nats-server 2.15.1 writes them, shortened.
    #[test]
    fn advisories_are_read_as_the_server_writes_them() {
        let session = SessionId::new();
        let message = |kind: &str, reason: &str| {
            let payload = json!({
                "type": "io.nats.server.advisory.v1.client_disconnect",
                "timestamp": "2026-11-22T20:39:43.162171065Z",
                "server": { "name": "n", "host": "127.0.0.1", "id": "NBS7", "ver": "2.15.1", "jetstream": true },
                "client": { "start": "2026-11-22T20:39:41.953756997Z", "id": 7, "acc": "RGRID", "name": format!("worker/x/{session}") },
                "reason": reason,
            });
            Message {
                subject: format!("$SYS.ACCOUNT.RGRID.{kind}").into(),
                reply: None,
                payload: payload.to_string().into(),
                headers: None,
                status: None,
                description: None,
                length: 0,
            }
        };
        let by_client = |reason| match read(&message("DISCONNECT", reason)) {
            Some(ConnectionNews::Disconnected(key, connection, by_client)) => {
                assert_eq!((key.1, connection.server.as_str(), connection.client), (session, "NBS7", 7));
                by_client
            }
            other => panic!("{other:?}"),
        };
        assert!(by_client("Client Closed") && by_client("Read Error") && by_client("Write Error"));
        assert!(!by_client("Server Shutdown") && !by_client("Stale Connection"));
        assert!(matches!(read(&message("CONNECT", "")), Some(ConnectionNews::Connected(..))));
        assert!(read(&message("CLAIMS", "")).is_none());
    }
}
