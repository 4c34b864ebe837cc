//! A container's output as its daemon stored it, made into the bytes that it wrote.
//!
//! The daemon's `local` log keeps lines, longer ones in pieces of 16 KiB; up to Docker 20.10 the newline behind a line that was cut
//! is lost. What is attached to sees the bytes themselves. So that one can go on where the other broke off, to the byte, both
//! must come to the same: here the pieces are put together again, the lost newlines with them.

use bytes::Bytes;

/// The longest piece that the daemon stores; a longer line is cut there.
const PIECE: usize = 16 << 10;

/// One of a container's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// How many bytes of each stream there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Of standard output.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

impl Counts {
    pub(super) const fn of(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Out => &mut self.stdout,
            Stream::Err => &mut self.stderr,
        }
    }
}

/// Reads stored messages from the first on, and gives out what comes after a position.
#[derive(Debug)]
pub(super) struct Stored {
    /// Bytes that are still to be left out.
    skip: Counts,
    /// Whether the last piece of a stream was cut, and whether a newline is owed since.
    lines: [Line; 2],
    /// When the first message was stored.
    first: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    /// It begins.
    #[default]
    New,
    /// A piece of it was stored, and more follows.
    Cut,
    /// Its last piece was stored without its newline, which is there if anything follows.
    Owed,
}

impl Stored {
    /// Leaves out what was seen already.
    pub(super) const fn after(seen: Counts) -> Self {
        Self {
            skip: seen,
            lines: [Line::New; 2],
            first: None,
        }
    }

    /// When the first message was stored, by the daemon's clock: by it, a log that lost its beginning is known.
    pub(super) fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// Takes the next message, which begins with its time; gives what is new of it, in order.
    pub(super) fn take(&mut self, stream: Stream, message: &Bytes) -> [Bytes; 2] {
        let time = message.iter().position(|&byte| byte == b' ').unwrap_or(message.len());
        if self.first.is_none() {
            self.first = Some(String::from_utf8_lossy(&message[..time]).into_owned());
        }
        let piece = message.slice((time + 1).min(message.len())..);
        let line = &mut self.lines[stream as usize];
        let owed = match *line {
            Line::Owed => Bytes::from_static(b"\n"),
            Line::New | Line::Cut => Bytes::new(),
        };
        *line = match *line {
            _ if piece.last() == Some(&b'\n') => Line::New,
            _ if piece.len() >= PIECE => Line::Cut,
            Line::Cut => Line::Owed,
            Line::New | Line::Owed => Line::New,
        };
        [self.unseen(stream, owed), self.unseen(stream, piece)]
    }

    fn unseen(&mut self, stream: Stream, mut bytes: Bytes) -> Bytes {
        let skip = self.skip.of(stream);
        let left_out = usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len());
        *skip -= left_out as u64;
        bytes.split_off(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of these messages of one stream, after so many bytes.
    fn read(messages: &[&[u8]], after: u64) -> Vec<u8> {
        let mut stored = Stored::after(Counts { stdout: after, stderr: 0 });
        let mut read = Vec::new();
        for message in messages {
            let message = [b"2026-11-22T21:00:00.000000001Z ", *message].concat();
            for bytes in stored.take(Stream::Out, &message.into()) {
                read.extend_from_slice(&bytes);
            }
        }
        assert_eq!(stored.first(), (!messages.is_empty()).then_some("2026-11-22T21:00:00.000000001Z"));
        read
    }

    #[test]
    fn output_that_was_read_already_is_skipped_to_the_byte() {
        let messages: [&[u8]; 4] = [b"one\n", b"\n", b"two \x00\xff\n", b"no newline"];
        let whole = messages.concat();
        for seen in 0..=whole.len() {
            assert_eq!(read(&messages, seen as u64), whole[seen..], "{seen}");
        }
        assert_eq!(read(&messages, 1_000), b"", "seen, and not stored yet");
    }

    #[test]
    fn a_cut_line_is_whole_again_whether_or_not_its_newline_was_lost() {
        let piece = [b'x'; PIECE];
        let whole = [&piece[..], b"rest\nnext\n"].concat();
        assert_eq!(read(&[&piece, b"rest\n", b"next\n"], 0), whole);
        assert_eq!(read(&[&piece, b"rest", b"next\n"], 0), whole);
        let exact = [&piece[..], b"\nnext\n"].concat();
        assert_eq!(read(&[&piece, b"", b"next\n"], 0), exact);
        let seen = PIECE as u64 + 5;
        assert_eq!(read(&[&piece, b"rest", b"next\n"], seen), b"next\n", "the newline was seen");
    }

    #[test]
    fn the_two_streams_are_counted_apart() {
        let mut stored = Stored::after(Counts { stdout: 2, stderr: 0 });
        let message = |text: &str| Bytes::from(format!("t {text}\n"));
        let [_, out] = stored.take(Stream::Out, &message("abc"));
        let [_, err] = stored.take(Stream::Err, &message("abc"));
        assert_eq!((&out[..], &err[..]), (&b"c\n"[..], &b"abc\n"[..]));
    }
}
