//! Whether a log is complete. A reader must not conclude anything from the absence of an event if events are missing. Pure.

use std::ops::Range;

/// Why a log is not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// Its beginning was purged.
    #[error("the log begins at sequence {first}: the events before it were purged")]
    Purged {
        /// The first sequence in the log, or the next one if the log is empty.
        first: u64,
    },
    /// Events in its middle are missing.
    #[error("{count} events are missing in the middle of the log{}", near.map_or_else(String::new, |near| format!(", the first at sequence {near}")))]
    Missing {
        /// The number of missing events.
        count: u64,
        /// The sequence of the first missing event, if known.
        near: Option<u64>,
    },
    /// Its end is before a sequence that was seen earlier.
    #[error("the log ends at sequence {last}, but sequence {seen} was seen before: the log's end was lost, or it is another log")]
    Truncated {
        /// The last sequence.
        last: u64,
        /// The last sequence that was seen.
        seen: u64,
    },
}

/// The extent of the log, as the server reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first sequence; of an empty log, the next sequence.
    pub first: u64,
    /// The last sequence that was assigned.
    pub last: u64,
    /// The number of events.
    pub messages: u64,
}

impl Extent {
    /// Whether the log contains every event that was ever stored, up to at least the sequence that was `seen` before (0: none).
    ///
    /// # Errors
    /// If it does not.
    pub const fn check(&self, seen: u64) -> Result<(), Incomplete> {
        let Self { first, last, messages } = *self;
        if last < seen {
            return Err(Incomplete::Truncated { last, seen });
        }
        // The first sequence of an empty log is 0 or 1, depending on the server's version.
        if first > 1 {
            return Err(Incomplete::Purged { first });
        }
        if messages < last {
            return Err(Incomplete::Missing {
                count: last - messages,
                near: None,
            });
        }
        Ok(())
    }
}

/// A reader's position in a log. It begins at sequence 1, or after the sequence that the reader knows already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Position {
    last: u64,
}

impl Position {
    /// The position of a reader that knows everything up to this sequence.
    #[must_use]
    pub const fn after(last: u64) -> Self {
        Self { last }
    }

    /// Records the next message, and returns the sequences before it that were not read.
    pub fn take(&mut self, sequence: u64) -> Range<u64> {
        let next = self.last + 1;
        self.last = self.last.max(sequence);
        next..sequence
    }

    /// The last sequence that was read.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn extent(first: u64, last: u64, messages: u64) -> Extent {
        Extent { first, last, messages }
    }

    #[test]
    fn only_a_log_with_every_stored_event_is_complete() {
        for (whole, seen) in [
            (extent(0, 0, 0), 0),
            (extent(1, 0, 0), 0),
            (extent(1, 9, 9), 0),
            (extent(1, 9, 9), 9),
        ] {
            assert_eq!(whole.check(seen), Ok(()), "{whole:?}");
        }
        assert_eq!(extent(4, 9, 6).check(9), Err(Incomplete::Purged { first: 4 }));
        assert_eq!(extent(10, 9, 0).check(9), Err(Incomplete::Purged { first: 10 }), "all of it");
        assert_eq!(extent(1, 9, 7).check(0), Err(Incomplete::Missing { count: 2, near: None }));
        assert_eq!(extent(1, 8, 8).check(9), Err(Incomplete::Truncated { last: 8, seen: 9 }));
        assert_eq!(
            extent(0, 0, 0).check(9),
            Err(Incomplete::Truncated { last: 0, seen: 9 }),
            "another log"
        );
    }

    #[test]
    fn a_reader_notices_missing_sequences() {
        let mut reading = Position::default();
        assert!(reading.take(1).is_empty() && reading.take(2).is_empty());
        assert!(reading.take(2).is_empty(), "the same one again");
        assert_eq!(reading.take(5), 3..5);
        assert_eq!(reading.last(), 5);
        assert_eq!(Position::default().take(3), 1..3, "the beginning");
        assert!(Position::after(7).take(8).is_empty());
        assert_eq!(Position::after(7).take(10), 8..10, "what followed on what was known");
    }
}
