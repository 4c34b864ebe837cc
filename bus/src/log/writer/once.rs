//! Writing for a caller that plans again where another writer was first: one try, behind what the caller knows.

use super::{Aggregate, Error, Loaded, Outcome, Writer};
use crate::{
    envelope::Envelope,
    ids::EventId,
    log::append::{self, Append},
};

impl Writer {
    /// Decides on an aggregate that the caller has loaded, and appends the event behind it. `cause` is the event that the command
    /// answers.
    ///
    /// # Errors
    /// See [`Error`]; a conflict ([`Error::is_conflict`]) if another writer was first.
    pub async fn write_once<A: Aggregate>(
        &self,
        id: &A::Id,
        loaded: Loaded<A>,
        command: &A::Command,
        cause: Option<EventId>,
    ) -> Result<Outcome<A>, Error> {
        let loaded = Loaded { cause, ..loaded };
        Ok(match self.try_once(&loaded, id, command).await? {
            Ok((envelope, sequence)) => Outcome::Appended(A::evolve(loaded.state, id, sequence, envelope), sequence),
            Err(rejection) => Outcome::Rejected(loaded.state, loaded.last, rejection),
        })
    }

    /// Decides on a command by an aggregate as it was loaded, and appends the event behind its last one: one try of every write.
    pub(super) async fn try_once<A: Aggregate>(
        &self,
        loaded: &Loaded<A>,
        id: &A::Id,
        command: &A::Command,
    ) -> Result<Result<(Envelope<A::Event>, u64), A::Rejection>, Error> {
        let event = match A::decide(loaded.state.as_ref(), command) {
            Ok(event) => event,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let envelope = self.envelope(loaded, event, loaded.cause);
        let append = A::append(loaded, id, &envelope);
        let _room = if A::needs_room(&envelope.event) {
            Some(self.admit(append.weight()).await?)
        } else {
            None
        };
        let sequence = self.log.append(append).await?;
        Ok(Ok((envelope, sequence)))
    }

    /// Appends an event that is true whatever the aggregate's state is, behind the last event that the caller knows; returns its
    /// id and its sequence. Nothing is read.
    ///
    /// # Errors
    /// See [`Error`]; a conflict ([`Error::is_conflict`]) if another event came since.
    pub async fn record<A: Aggregate>(&self, id: &A::Id, last: u64, event: A::Event) -> Result<(EventId, u64), Error> {
        let (state, correlation) = (None, None);
        let known = Loaded::<A> {
            state,
            last,
            correlation,
            cause: None,
        };
        let envelope = self.envelope(&known, event, None);
        let sequence = self.log.append(A::append(&known, id, &envelope)).await?;
        Ok((envelope.id, sequence))
    }

    /// Several events that are stored together, or not at all.
    pub const fn atomic(&self) -> AtomicWrite<'_> {
        AtomicWrite {
            writer: self,
            appends: Vec::new(),
            needs_room: false,
        }
    }

    fn envelope<A: Aggregate>(&self, loaded: &Loaded<A>, event: A::Event, cause: Option<EventId>) -> Envelope<A::Event> {
        Envelope {
            causation_id: cause,
            correlation_id: loaded.correlation,
            ..Envelope::new(self.actor.clone(), event)
        }
    }
}

/// Events of several aggregates that one atomic batch stores, in the order in which they were added.
#[derive(Debug)]
#[must_use = "nothing is stored before the commit"]
pub struct AtomicWrite<'a> {
    writer: &'a Writer,
    appends: Vec<Append>,
    needs_room: bool,
}

impl AtomicWrite<'_> {
    /// Decides on an aggregate that the caller has loaded, and adds the event; returns its id.
    ///
    /// # Errors
    /// Why the command changes nothing; nothing is added then.
    pub fn add<A: Aggregate>(
        &mut self,
        id: &A::Id,
        loaded: &Loaded<A>,
        command: &A::Command,
        cause: Option<EventId>,
    ) -> Result<EventId, A::Rejection> {
        let event = A::decide(loaded.state.as_ref(), command)?;
        let envelope = self.writer.envelope(loaded, event, cause);
        self.needs_room |= A::needs_room(&envelope.event);
        self.appends.push(A::append(loaded, id, &envelope));
        Ok(envelope.id)
    }

    /// Stores all the events or none, and returns the sequences of the first and of the last one.
    ///
    /// # Errors
    /// See [`Error`]; a conflict ([`Error::is_conflict`]) if another writer was first at any of the aggregates.
    pub async fn commit(self) -> Result<(u64, u64), Error> {
        let _room = if self.needs_room {
            Some(self.writer.admit(self.appends.iter().map(Append::weight).sum()).await?)
        } else {
            None
        };
        let last = self.writer.log.append_all(&self.appends).await?;
        // They are stored one behind the other.
        Ok(((last + 1).saturating_sub(self.appends.len() as u64), last))
    }
}

impl Error {
    /// Whether another writer was first.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Append(append::Error::Conflict { .. }))
    }

    /// Whether the log is full, for an event of this kind or for all.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::NoRoom { .. } | Self::Append(append::Error::Full { .. }))
    }
}
