//! Listening to the broker's own account of who is connected. Only its system account hears that.

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

use crate::{connections::Connection, error::chain, seen::SessionKey};

/// How often the listener looks whether its own connection is still the same.
const LOOK: Duration = Duration::from_millis(100);
/// How often every server is asked whether it is there.
const ASK: Duration = Duration::from_millis(500);
/// Questions whose answers count; older ones come from a server that was frozen.
const ASKED: usize = 8;
/// How long the servers may take to list their connections.
const LISTING: Duration = Duration::from_millis(500);
/// The most connections that a server lists.
const LISTED: usize = 16_384;
/// Before the next try at what failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Why a connection ends when its client does. Others are the server's doing: it stops, or finds its client too slow.
const TELLING: [&str; 3] = ["Client Closed", "Read Error", "Write Error"];

/// What the broker says.
#[derive(Debug)]
pub(crate) enum Advice {
    /// From now on it is heard, over this connection. What happened before that was not.
    Listening(Client),
    /// A session has a connection, since then by its server's clock.
    Made(SessionKey, Connection, DateTime<Utc>),
    /// This server answered what it was asked at that moment.
    Answered(String, std::time::Instant),
    /// A session's connection ended, for a reason that may be its runner's death.
    Ended(SessionKey, Connection, bool),
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
    client: Described,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct Described {
    id: u64,
    start: DateTime<Utc>,
    #[serde(default)]
    name: String,
}

/// Listens for as long as it lives; waits for a broker that does not answer, or does not know these credentials.
pub(crate) async fn listen(bus: Bus, urls: String, advice: mpsc::Sender<Advice>) {
    let account = account_of(&bus).await;
    let client = match connect::patiently(&urls, "watcher/system").await {
        Ok(system) => system.client,
        Err(error) => {
            warn!("cannot listen for dead runners: {}; heartbeats alone tell of them", chain(&error));
            return;
        }
    };
    // One subscription for both kinds: they are heard in the order in which they happened.
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
                    asking: Asking::new(inbox),
                    advice: &advice,
                };
                if listener.follow(advisories, answers).await.is_none() {
                    return;
                }
            }
            (Err(error), _) | (_, Err(error)) => debug!("cannot listen for dead runners yet: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Listener<'a> {
    client: &'a Client,
    account: &'a str,
    asking: Asking,
    advice: &'a mpsc::Sender<Advice>,
}

impl Listener<'_> {
    /// Nothing, when nobody wants to know any more.
    async fn follow(mut self, mut advisories: Subscriber, mut answers: Subscriber) -> Option<()> {
        let (mut looks, mut asks) = (tokio::time::interval(LOOK), tokio::time::interval(ASK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_since = None;
        loop {
            let said = tokio::select! {
                message = advisories.next() => match message {
                    Some(message) => read(&message),
                    None => return Some(()),
                },
                message = answers.next() => match message {
                    Some(message) => self.asking.answered(&message),
                    None => return Some(()),
                },
                _ = asks.tick() => {
                    let reply = self.asking.next();
                    // What cannot be asked is not answered.
                    let _unasked = self.client.publish_with_reply("$SYS.REQ.SERVER.PING.IDZ", reply, Bytes::new()).await;
                    None
                }
                _ = looks.tick() => {
                    self.list_again(&mut heard_since).await?;
                    None
                }
            };
            if let Some(said) = said {
                self.advice.send(said).await.ok()?;
            }
        }
    }

    /// Begins anew where the connection is another one than it was: what happened meanwhile was not heard.
    async fn list_again(&self, heard_since: &mut Option<u64>) -> Option<()> {
        let connects = made(self.client);
        if connects.is_none() || connects == *heard_since {
            return Some(());
        }
        match list(self.client, self.account).await {
            Ok(listed) => {
                if heard_since.is_none() {
                    info!("listening to the broker for dead runners: their jobs run elsewhere within 1 s");
                }
                *heard_since = connects;
                self.advice.send(Advice::Listening(self.client.clone())).await.ok()?;
                for one in listed {
                    self.advice.send(one).await.ok()?;
                }
            }
            Err(error) => debug!("the broker does not list its connections yet: {error}"),
        }
        Some(())
    }
}

/// What all servers are asked, again and again, each time with another subject for the answers.
struct Asking {
    inbox: String,
    count: u64,
    /// When the last questions were sent.
    sent: VecDeque<(u64, std::time::Instant)>,
}

impl Asking {
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
        if self.sent.len() > ASKED {
            self.sent.pop_front();
        }
        format!("{}.{}", self.inbox, self.count)
    }

    fn answered(&self, message: &Message) -> Option<Advice> {
        let number = message.subject.rsplit('.').next()?.parse::<u64>().ok()?;
        let (_, sent) = self.sent.iter().find(|(count, _)| *count == number)?;
        let server = parsed::<Server>(message).ok()?;
        Some(Advice::Answered(server.id, *sent))
    }
}

/// How often this client was connected, if it is now.
pub(crate) fn made(client: &Client) -> Option<u64> {
    let connects = client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed);
    (client.connection_state() == State::Connected).then_some(connects)
}

/// The account that the grid is in: connections of others, whatever they are called, are none of its workers'.
async fn account_of(bus: &Bus) -> String {
    loop {
        match bus.client.request("$SYS.REQ.USER.INFO", Bytes::new()).await {
            Ok(message) => match serde_json::from_slice::<Answer<UserInfo>>(&message.payload) {
                Ok(answer) => return answer.data.account,
                Err(error) => warn!("the broker does not say which account this is: {error}"),
            },
            Err(error) => debug!("the broker does not say yet which account this is: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The connections of every session on every server.
async fn list(client: &Client, account: &str) -> Result<Vec<Advice>, Box<dyn std::error::Error + Send + Sync>> {
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
            listed.extend(session_of(&one.name).map(|key| Advice::Made(key, connection, one.start)));
        }
    }
    Ok(listed)
}

fn read(message: &Message) -> Option<Advice> {
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
        let telling = advisory.reason.is_none_or(|reason| TELLING.contains(&&*reason));
        Advice::Ended(key, connection, telling)
    } else {
        Advice::Made(key, connection, advisory.client.start)
    })
}

fn parsed<T: DeserializeOwned>(message: &Message) -> serde_json::Result<T> {
    serde_json::from_slice(&message.payload)
}

/// Whose connection it is: a runner calls it `worker/<id>/<session>`. What has more parts carries its files.
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
    fn an_answer_counts_from_its_question_and_an_old_one_does_not() {
        let mut asking = Asking::new("inbox".to_owned());
        let message = |subject: String| Message {
            subject: subject.into(),
            reply: None,
            payload: json!({ "name": "n", "host": "127.0.0.1", "id": "NBS7" }).to_string().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let first = asking.next();
        let answered = |asking: &Asking, reply: &str| asking.answered(&message(reply.to_owned())).is_some();
        assert!(answered(&asking, &first) && !answered(&asking, "inbox.7") && !answered(&asking, "inbox.x"));
        for _ in 0..ASKED {
            asking.next();
        }
        assert!(
            !answered(&asking, &first),
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
        let telling = |reason| match read(&message("DISCONNECT", reason)) {
            Some(Advice::Ended(key, connection, telling)) => {
                assert_eq!((key.1, connection.server.as_str(), connection.client), (session, "NBS7", 7));
                telling
            }
            other => panic!("{other:?}"),
        };
        assert!(telling("Client Closed") && telling("Read Error") && telling("Write Error"));
        assert!(!telling("Server Shutdown") && !telling("Stale Connection"));
        assert!(matches!(read(&message("CONNECT", "")), Some(Advice::Made(..))));
        assert!(read(&message("CLAIMS", "")).is_none());
    }
}
