//! Which silences and disconnects count at a moment, and what time it is.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Session, State};
use crate::{
    connections::{Connection, SETTLED},
    observation::SessionKey,
};

/// The watcher receives no heartbeats if the last of its own that came back is older than this.
const DEAF_AFTER: Duration = Duration::from_secs(1);

impl State {
    /// Notes what the wall clock shows now.
    pub const fn set_clock(&mut self, now: Instant, wall: DateTime<Utc>) {
        self.clock = Some((now, wall));
    }

    /// What the wall clock shows at a moment; nothing before the first [`Self::set_clock`].
    pub(crate) fn wall(&self, now: Instant) -> Option<DateTime<Utc>> {
        let (at, wall) = self.clock?;
        let (ahead, behind) = (now.saturating_duration_since(at), at.saturating_duration_since(now));
        let shift = |duration| TimeDelta::from_std(duration).ok();
        wall.checked_add_signed(shift(ahead)?)?.checked_sub_signed(shift(behind)?)
    }

    /// One of the watcher's own heartbeats, sent at this moment, was acknowledged and came back.
    pub fn own_heartbeat_received(&mut self, sent: Instant) {
        self.canary = self.canary.max(Some(sent));
    }

    /// Counts every silence from now: heartbeats may have been missed until now.
    pub fn restart_silences(&mut self, now: Instant) {
        self.trusted_since = now;
        self.connections.forget_ended();
    }

    /// Checks whether the watcher's own heartbeats come back. If not, or if the last check is too long ago because the watcher itself
    /// was stopped, every silence counts from now.
    pub fn check_hearing(&mut self, now: Instant) {
        let stopped = now.saturating_duration_since(self.listened) > DEAF_AFTER;
        self.listened = now;
        if stopped || !self.hears(now) {
            self.restart_silences(now);
        }
        self.connections.check_hearing(now);
    }

    /// Reports of connections may have been missed until now.
    pub fn connections_doubted_until(&mut self, now: Instant) {
        self.connections_since = now;
        self.connections.forget_ended();
    }

    /// The broker's reports of connections are received from now on, and were not before.
    ///
    /// The server of each session, and which servers do not answer, stay known: the watcher itself may have been connected to such a
    /// server, and the server's other clients may find another one later than the watcher.
    pub fn connections_heard_from(&mut self, now: Instant) {
        let sessions = &self.sessions;
        self.connections.retain(|key| sessions.contains_key(key));
        self.connections_doubted_until(now);
    }

    /// The broker reports that a session is connected, since `start` by the server's clock. A session that connects to another server
    /// after its own stopped answering shows that it lives.
    pub fn connected(&mut self, key: &SessionKey, connection: Connection, start: DateTime<Utc>, now: Instant) {
        let mut lives = true;
        if let Some(session) = self.sessions.get_mut(key) {
            lives = session.ended.is_none();
            let server_deaf_until = self.connections.excused_until(key);
            if server_deaf_until.is_some_and(|until| now.saturating_duration_since(until) <= SETTLED) {
                session.heard = session.heard.max(now);
            }
        }
        if lives {
            self.connections.connected(key, connection, start);
        }
    }

    /// The broker reports that a session's connection ended; `by_client`: for a reason that may be its runner's death. Returns whether
    /// that counts: the session lives, and the broker has been well for long enough.
    pub fn disconnected(&mut self, key: &SessionKey, connection: &Connection, by_client: bool, now: Instant) -> bool {
        let well_since = self.trusted_since.max(self.connections_since);
        let well = self.hears(now) && now.saturating_duration_since(well_since) >= SETTLED;
        let lives = self.sessions.get(key).is_some_and(|session| session.ended.is_none());
        self.connections.disconnected(key, connection, by_client && well && lives, now)
    }

    /// When the connection of the session's runner ended, if that means that the runner is dead: it did not reconnect in time, and one
    /// of the watcher's own heartbeats that was sent later has come back.
    pub(crate) fn dead_since(&self, key: &SessionKey, session: &Session, now: Instant) -> Option<Instant> {
        let gone = self.connections.dead_since(key, session.heard, now)?;
        (self.hears(now) && self.canary > Some(gone)).then_some(gone)
    }

    /// When a command may be due next that must not wait for the next tick.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.next_death(now).into_iter().chain(self.next_timer(now)).min()
    }

    /// When the next disconnected session has had its time to reconnect.
    pub(crate) fn next_death(&self, now: Instant) -> Option<Instant> {
        self.connections.next_due(now)
    }

    /// When the next waiting job is to be checked.
    pub(crate) fn next_timer(&self, now: Instant) -> Option<Instant> {
        let wall = self.wall(now)?;
        let ahead = (self.timers.next_due(wall)? - wall).to_std().ok()?;
        now.checked_add(ahead)
    }

    /// Whether a command is due for a waiting job or for a batch.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.windows.has_actions() || self.wall(now).is_some_and(|wall| self.timers.is_due(wall))
    }

    /// Whether the watcher receives heartbeats: its own come back.
    #[must_use]
    pub fn hears(&self, now: Instant) -> bool {
        self.canary.is_some_and(|sent| now.saturating_duration_since(sent) <= DEAF_AFTER)
    }

    /// A server of the broker answered a ping that was sent at this moment.
    pub fn server_answered(&mut self, server: &str, sent: Instant) {
        self.connections.answered(server, sent);
    }

    /// How long a session has been silent, not counting the time in which its server or the watcher itself was cut off.
    pub(crate) fn silence(&self, key: &SessionKey, session: &Session, now: Instant) -> Duration {
        let since = session.last_sign_of_life().max(self.trusted_since);
        let since = self.connections.excused_until(key).map_or(since, |until| since.max(until));
        now.saturating_duration_since(since)
    }

    /// Whether a session's runner announced a restart, and still has time for it.
    pub(crate) fn is_away(&self, session: &Session, now: Instant) -> bool {
        session
            .away_until
            .is_some_and(|until| self.wall(now).is_none_or(|wall| wall < until))
    }
}
