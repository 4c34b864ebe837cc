//! What the broker says of the runners' connections: the quick sign of a dead one.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::seen::SessionKey;

/// A session whose connection went has so long to make another: the pause between two tries to reconnect stays below it for
/// the first five tries.
pub(crate) const RETURN_WITHIN: Duration = Duration::from_millis(400);
/// For so long the broker must have been well before it is believed that a connection's end is its runner's: when it went on
/// after a freeze, or was started again, every client has to find back.
pub(crate) const SETTLED: Duration = Duration::from_secs(2);
/// A heartbeat that was sent before the end may come in so long after it was announced.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// A server that has not answered for so long does not carry its clients' heartbeats either.
const DEAF_AFTER: Duration = Duration::from_secs(1);
/// And for so long after its last answer that is held against it and not against them: its clients notice within 6 s, and may
/// need 5 s more to find one that lives. Who is silent after that is silent himself.
const EXCUSED_FOR: Duration = Duration::from_secs(12);

/// One connection of a client: on which server, and its number there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The server's identity.
    pub server: String,
    /// The client's number on that server.
    pub client: u64,
}

/// The newest connection of each session, and when those went that have none.
///
/// A runner's client has one connection at a time, so a new one takes the place of every older one. The end of an older one
/// says nothing: a client that moved to another server may be let go by the first one late, or never.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections {
    newest: HashMap<SessionKey, (Connection, DateTime<Utc>)>,
    gone: HashMap<SessionKey, Instant>,
    servers: HashMap<String, Server>,
}

/// One server of the broker.
#[derive(Debug, Clone, Copy)]
struct Server {
    /// When the last question was sent that it answered.
    answered: Instant,
    /// Until when the silence of its clients may be its own.
    deaf_until: Option<Instant>,
}

impl Connections {
    /// A session's connection is there, since the time that the server says.
    pub(crate) fn made(&mut self, key: &SessionKey, connection: Connection, start: DateTime<Utc>) {
        self.gone.remove(key);
        let newest = self.newest.entry(key.clone()).or_insert_with(|| (connection.clone(), start));
        if newest.1 <= start {
            *newest = (connection, start);
        }
    }

    /// A session's connection went, for a reason that may be its runner's death, or not (its server stops). Whether that is
    /// something to wait for.
    pub(crate) fn ended(&mut self, key: &SessionKey, connection: &Connection, telling: bool, now: Instant) -> bool {
        if self.newest.get(key).is_some_and(|(newest, _)| newest != connection) {
            return false;
        }
        self.newest.remove(key);
        if telling {
            self.gone.insert(key.clone(), now);
        }
        telling
    }

    /// Keeps only the connections of these sessions.
    pub(crate) fn retain(&mut self, known: impl Fn(&SessionKey) -> bool) {
        self.newest.retain(|key, _| known(key));
    }

    /// Nothing follows from what went until now.
    pub(crate) fn forgive(&mut self) {
        self.gone.clear();
    }

    /// A server answered a question that was sent at this moment.
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

    /// Looks which servers do not answer.
    pub(crate) fn listen(&mut self, now: Instant) {
        for server in self.servers.values_mut() {
            let since = now.saturating_duration_since(server.answered);
            if since > DEAF_AFTER && since <= EXCUSED_FOR {
                server.deaf_until = Some(now);
            }
        }
        self.servers
            .retain(|_, server| now.saturating_duration_since(server.answered) <= EXCUSED_FOR * 2);
    }

    /// Until when a session's silence may be that of its server.
    pub(crate) fn excused_until(&self, key: &SessionKey) -> Option<Instant> {
        let (newest, _) = self.newest.get(key)?;
        self.servers.get(&newest.server)?.deaf_until
    }

    /// A session is over; nobody asks for its connections any more.
    pub(crate) fn over(&mut self, key: &SessionKey) {
        self.newest.remove(key);
        self.gone.remove(key);
    }

    /// When the session's connection went, if it had the time to make another, and did not beat since.
    pub(crate) fn dead_since(&self, key: &SessionKey, heard: Instant, now: Instant) -> Option<Instant> {
        let gone = *self.gone.get(key)?;
        (now >= gone + RETURN_WITHIN && heard < gone + UNDER_WAY).then_some(gone)
    }

    /// When the next of those that went has had its time.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.gone.values().map(|gone| *gone + RETURN_WITHIN).filter(|due| *due > now).min()
    }
}
