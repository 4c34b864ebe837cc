//! Whether the log was read whole: what a reader concludes from the absence of an event is wrong where events are missing. Pure.

use std::ops::Range;

/// How a log is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// Its beginning was purged.
    #[error("the log begins at sequence {first}: the events before it were purged")]
    Purged {
        /// The first sequence that is there, or that would come next.
        first: u64,
    },
    /// Events are missing in its middle.
    #[error("{count} events are missing in the middle of the log{}", near.map_or_else(String::new, |near| format!(", the first at sequence {near}")))]
    Missing {
        /// How many.
        count: u64,
        /// The first of them, where that is known.
        near: Option<u64>,
    },
    /// Its end is before what was seen of it.
    #[error("the log ends at sequence {last}, and sequence {seen} of it was seen before: its end was lost, or it is another log")]
    Truncated {
        /// The last sequence.
        last: u64,
        /// The last sequence that was seen.
        seen: u64,
    },
}

/// What the server says of the log's extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first sequence that is there; of an empty log, the next one.
    pub first: u64,
    /// The last sequence that was given out.
    pub last: u64,
    /// How many events are there.
    pub messages: u64,
}

impl Extent {
    /// Whether every event that was ever stored is there, up to at least the one that was `seen` before (0: none was).
    ///
    /// # Errors
    /// Where it is not.
    pub const fn check(&self, seen: u64) -> Result<(), Gap> {
        let Self { first, last, messages } = *self;
        if last < seen {
            return Err(Gap::Truncated { last, seen });
        }
        // An empty log begins at 0 or 1, by the server's version.
        if first > 1 {
            return Err(Gap::Purged { first });
        }
        if messages < last {
            return Err(Gap::Missing {
                count: last - messages,
                near: None,
            });
        }
        Ok(())
    }
}

/// A reader's place in a log that begins at sequence 1, or behind what it knows already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    last: u64,
}

impl Reading {
    /// The place of a reader that knows everything up to a sequence.
    #[must_use]
    pub const fn after(last: u64) -> Self {
        Self { last }
    }

    /// Takes note of the next message, and returns the sequences before it that were not read.
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
    fn only_a_log_with_all_that_was_ever_stored_is_whole() {
        for (whole, seen) in [
            (extent(0, 0, 0), 0),
            (extent(1, 0, 0), 0),
            (extent(1, 9, 9), 0),
            (extent(1, 9, 9), 9),
        ] {
            assert_eq!(whole.check(seen), Ok(()), "{whole:?}");
        }
        assert_eq!(extent(4, 9, 6).check(9), Err(Gap::Purged { first: 4 }));
        assert_eq!(extent(10, 9, 0).check(9), Err(Gap::Purged { first: 10 }), "all of it");
        assert_eq!(extent(1, 9, 7).check(0), Err(Gap::Missing { count: 2, near: None }));
        assert_eq!(extent(1, 8, 8).check(9), Err(Gap::Truncated { last: 8, seen: 9 }));
        assert_eq!(extent(0, 0, 0).check(9), Err(Gap::Truncated { last: 0, seen: 9 }), "another log");
    }

    #[test]
    fn a_reader_notices_what_it_did_not_read() {
        let mut reading = Reading::default();
        assert!(reading.take(1).is_empty() && reading.take(2).is_empty());
        assert!(reading.take(2).is_empty(), "the same one again");
        assert_eq!(reading.take(5), 3..5);
        assert_eq!(reading.last(), 5);
        assert_eq!(Reading::default().take(3), 1..3, "the beginning");
        assert!(Reading::after(7).take(8).is_empty());
        assert_eq!(Reading::after(7).take(10), 8..10, "what followed on what was known");
    }
}
