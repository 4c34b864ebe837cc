//! What can be believed at a moment: of silences, of connections, and of the time.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Session, State};
use crate::{
    connections::{Connection, SETTLED},
    seen::SessionKey,
};

/// The watcher hears nothing if its own last heartbeat that came back is older than this.
const DEAF_AFTER: Duration = Duration::from_secs(1);

impl State {
    /// Takes note of what the wall clock shows now.
    pub const fn tell_time(&mut self, now: Instant, wall: DateTime<Utc>) {
        self.clock = Some((now, wall));
    }

    /// What the wall clock shows at a moment, as far as is known.
    pub(crate) fn wall(&self, now: Instant) -> Option<DateTime<Utc>> {
        let (at, wall) = self.clock?;
        let (ahead, behind) = (now.saturating_duration_since(at), at.saturating_duration_since(now));
        let shift = |duration| TimeDelta::from_std(duration).ok();
        wall.checked_add_signed(shift(ahead)?)?.checked_sub_signed(shift(behind)?)
    }

    /// A heartbeat of the watcher itself, sent at this moment, was acknowledged and came back.
    pub fn hear_self(&mut self, sent: Instant) {
        self.canary = self.canary.max(Some(sent));
    }

    /// Counts every silence from now, since what is heard cannot be trusted until now.
    pub fn distrust(&mut self, now: Instant) {
        self.trusted_since = now;
        self.connections.forgive();
    }

    /// Looks whether the watcher hears itself, and distrusts every silence if it does not, or could not look for as long: it
    /// was stopped itself.
    pub fn listen(&mut self, now: Instant) {
        let stopped = now.saturating_duration_since(self.listened) > DEAF_AFTER;
        self.listened = now;
        if stopped || !self.hears(now) {
            self.distrust(now);
        }
        self.connections.listen(now);
    }

    /// What the broker says of connections may be wanting until now.
    pub fn doubt_connections(&mut self, now: Instant) {
        self.connections_since = now;
        self.connections.forgive();
    }

    /// The broker is heard on its clients' connections from now on, and was not before.
    ///
    /// Which server each session was on, and which servers fell silent, stays known: the server that did may be the one that the
    /// watcher was on itself, and its other clients find another one later than the watcher.
    pub fn listen_to_connections(&mut self, now: Instant) {
        let sessions = &self.sessions;
        self.connections.retain(|key| sessions.contains_key(key));
        self.doubt_connections(now);
    }

    /// The broker says that a session has a connection, since then by its server's clock. One that finds another server, after
    /// its own fell silent, shows that it lives.
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
            self.connections.made(key, connection, start);
        }
    }

    /// The broker says that a session's connection ended, for a reason that may be its runner's death. Whether that is
    /// something to wait for: the session lives, and the broker has been well for long enough to be believed.
    pub fn disconnected(&mut self, key: &SessionKey, connection: &Connection, telling: bool, now: Instant) -> bool {
        let well_since = self.trusted_since.max(self.connections_since);
        let well = self.hears(now) && now.saturating_duration_since(well_since) >= SETTLED;
        let lives = self.sessions.get(key).is_some_and(|session| session.ended.is_none());
        self.connections.ended(key, connection, telling && well && lives, now)
    }

    /// When the session's runner died by the broker's word: its connection went, it made no other, and the broker carried a
    /// heartbeat of ours that was sent after that.
    pub(crate) fn dead_since(&self, key: &SessionKey, session: &Session, now: Instant) -> Option<Instant> {
        let gone = self.connections.dead_since(key, session.heard, now)?;
        (self.hears(now) && self.canary > Some(gone)).then_some(gone)
    }

    /// When something may be to be done next that is not to wait for the next tick.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.next_death(now).into_iter().chain(self.next_timer(now)).min()
    }

    /// When a session whose connection went has had the time to make another.
    pub(crate) fn next_death(&self, now: Instant) -> Option<Instant> {
        self.connections.next_due(now)
    }

    /// When the next job that waits for a time is to be looked at.
    pub(crate) fn next_timer(&self, now: Instant) -> Option<Instant> {
        let wall = self.wall(now)?;
        let ahead = (self.timers.next_due(wall)? - wall).to_std().ok()?;
        now.checked_add(ahead)
    }

    /// Whether something is to be done for a job that waits, or for a batch.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.windows.is_restless() || self.wall(now).is_some_and(|wall| self.timers.is_due(wall))
    }

    /// Whether the broker carries heartbeats, our own for one.
    #[must_use]
    pub fn hears(&self, now: Instant) -> bool {
        self.canary.is_some_and(|sent| now.saturating_duration_since(sent) <= DEAF_AFTER)
    }

    /// A server of the broker answered a question that was sent at this moment.
    pub fn server_answered(&mut self, server: &str, sent: Instant) {
        self.connections.answered(server, sent);
    }

    /// For how long a session has been silent, as far as that can be told: not while it was its broker that was.
    pub(crate) fn silence(&self, key: &SessionKey, session: &Session, now: Instant) -> Duration {
        let since = session.told_of_at().max(self.trusted_since);
        let since = self.connections.excused_until(key).map_or(since, |until| since.max(until));
        now.saturating_duration_since(since)
    }

    /// Whether a session's runner said that it restarts, and has the time for that still.
    pub(crate) fn is_away(&self, session: &Session, now: Instant) -> bool {
        session
            .away_until
            .is_some_and(|until| self.wall(now).is_none_or(|wall| wall < until))
    }
}
