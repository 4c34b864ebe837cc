//! The runners' connections, as the broker reports them: their ends show dead runners within a second.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::observation::SessionKey;

/// How long a session has to reconnect: the pause between two tries of its client stays below this for the first five tries.
pub(crate) const RETURN_WITHIN: Duration = Duration::from_millis(400);
/// How long the broker must have been well before the end of a connection counts as its runner's death: after a freeze or a restart of
/// a server, every client has to reconnect.
pub(crate) const SETTLED: Duration = Duration::from_secs(2);
/// How long after the reported end a heartbeat may come in that was sent before it.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// A server that has not answered for this long does not deliver its clients' heartbeats either.
const DEAF_AFTER: Duration = Duration::from_secs(1);
/// For this long after its last answer, such a server excuses the silence of its clients: they notice within 6 s that it is gone, and
/// may need 5 s more to find another server. A client that is silent after that counts as silent.
const EXCUSED_FOR: Duration = Duration::from_secs(12);

/// One connection of a client to a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The server's identity.
    pub server: String,
    /// The client's number on that server.
    pub client: u64,
}

/// The newest connection of each session, and when the connection of a disconnected session ended.
///
/// A runner's client has one connection at a time, so a new one replaces every older one. The end of an older connection means
/// nothing: after a client moved to another server, the first server may drop its connection late, or never.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections {
    newest: HashMap<SessionKey, (Connection, DateTime<Utc>)>,
    gone: HashMap<SessionKey, Instant>,
    servers: HashMap<String, Server>,
}

/// One server of the broker.
#[derive(Debug, Clone, Copy)]
struct Server {
    /// When the last ping was sent that it answered.
    answered: Instant,
    /// Until when it excuses the silence of its clients.
    deaf_until: Option<Instant>,
}

impl Connections {
    /// A session is connected, since `start` by the server's clock.
    pub(crate) fn connected(&mut self, key: &SessionKey, connection: Connection, start: DateTime<Utc>) {
        self.gone.remove(key);
        let newest = self.newest.entry(key.clone()).or_insert_with(|| (connection.clone(), start));
        if newest.1 <= start {
            *newest = (connection, start);
        }
    }

    /// A session's connection ended; `by_client`: for a reason that may be its runner's death, and not because its server stops.
    /// Returns whether that counts.
    pub(crate) fn disconnected(&mut self, key: &SessionKey, connection: &Connection, by_client: bool, now: Instant) -> bool {
        if self.newest.get(key).is_some_and(|(newest, _)| newest != connection) {
            return false;
        }
        self.newest.remove(key);
        if by_client {
            self.gone.insert(key.clone(), now);
        }
        by_client
    }

    /// Keeps only the connections of these sessions.
    pub(crate) fn retain(&mut self, known: impl Fn(&SessionKey) -> bool) {
        self.newest.retain(|key, _| known(key));
    }

    /// The connections that ended until now do not count.
    pub(crate) fn forget_ended(&mut self) {
        self.gone.clear();
    }

    /// A server answered a ping that was sent at this moment.
    pub(crate) fn answered(&mut self, server: &str, sent: Instant) {
        if let Some(known) = self.servers.get_mut(server) {
            known.answered = known.answered.max(sent);
        } else {
            let known = Server {
                answered: sent,
                deaf_until: None,
            };
            self.servers.insert(server.to_owned(), known);
        }
    }

    /// Checks which servers do not answer.
    pub(crate) fn check_hearing(&mut self, now: Instant) {
        for server in self.servers.values_mut() {
            let since = now.saturating_duration_since(server.answered);
            if since > DEAF_AFTER && since <= EXCUSED_FOR {
                server.deaf_until = Some(now);
            }
        }
        self.servers
            .retain(|_, server| now.saturating_duration_since(server.answered) <= EXCUSED_FOR * 2);
    }

    /// Until when a session's silence is excused by its server.
    pub(crate) fn excused_until(&self, key: &SessionKey) -> Option<Instant> {
        let (newest, _) = self.newest.get(key)?;
        self.servers.get(&newest.server)?.deaf_until
    }

    /// A session ended: its connections do not matter any more.
    pub(crate) fn forget(&mut self, key: &SessionKey) {
        self.newest.remove(key);
        self.gone.remove(key);
    }

    /// When the session's connection ended, if it had its time to reconnect and has sent no heartbeat since.
    pub(crate) fn dead_since(&self, key: &SessionKey, heard: Instant, now: Instant) -> Option<Instant> {
        let gone = *self.gone.get(key)?;
        (now >= gone + RETURN_WITHIN && heard < gone + UNDER_WAY).then_some(gone)
    }

    /// When the next disconnected session has had its time to reconnect.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.gone.values().map(|gone| *gone + RETURN_WITHIN).filter(|due| *due > now).min()
    }
}
