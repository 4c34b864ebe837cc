//! The position of a reader in a log: the `id:` of the last event that it received.

use std::fmt;

use bus::{ids::Attempt, output::frame::Stream};

use crate::error::ApiError;

/// The attempt, the offset in its framed log, and the bytes of incomplete characters that were held back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) attempt: Option<Attempt>,
    /// Bytes of the framed log.
    pub(crate) offset: u64,
    /// For stdout and stderr, up to 3 bytes each.
    pub(crate) held: [Vec<u8>; 2],
}

impl Cursor {
    pub(crate) fn held(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.held[0],
            Stream::Stderr => &mut self.held[1],
        }
    }

    /// Parses what [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let parse = || {
            let mut parts = text.split(':');
            let attempt = Attempt(parts.next()?.parse().ok()?);
            let offset = parts.next()?.parse().ok()?;
            let mut held = [Vec::new(), Vec::new()];
            for held in &mut held {
                *held = hex::decode(parts.next().unwrap_or_default())
                    .ok()
                    .filter(|bytes| bytes.len() <= 3)?;
            }
            parts.next().is_none().then_some(Self {
                attempt: Some(attempt),
                offset,
                held,
            })
        };
        parse().ok_or_else(|| {
            ApiError::malformed("the header `Last-Event-ID` is not the id of an event of a log; leave it out to read from the start")
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.attempt.unwrap_or(Attempt::FIRST), self.offset)?;
        if self.held.iter().any(|held| !held.is_empty()) {
            write!(f, ":{}:{}", hex::encode(&self.held[0]), hex::encode(&self.held[1]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for held in [[vec![], vec![]], [vec![0xe2, 0x82], vec![]], [vec![], vec![0xf0]]] {
            let cursor = Cursor {
                attempt: Some(Attempt(2)),
                offset: 77,
                held,
            };
            assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }
        for bad in ["", "1", "x:1", "1:x", "1:1:zz:", "1:1:00:00:00", "1:-1", "1:1:00000000:"] {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
    }
}
