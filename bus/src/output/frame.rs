//! The format of attempt logs: frames, each a piece of one stream with the time at which it was read.
//!
//! A frame is `stream (1 byte: 1 stdout, 2 stderr) · time (8 bytes, microseconds since 1970) · length (4 bytes) · bytes`,
//! with big-endian numbers. A message on `rgrid.log.…` contains whole frames, and so does a stored segment.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// One of the two output streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of one output stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream that the piece belongs to.
    pub stream: Stream,
    /// When the runner read the piece, in microseconds since 1970.
    pub time_us: u64,
    /// The bytes that the command wrote. They need not be text, and may be cut anywhere.
    pub bytes: Bytes,
}

/// The length of a frame's header, in bytes.
pub const HEADER_LEN: usize = 13;

/// The bytes are not frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log does not consist of frames: {0}")]
pub struct Error(&'static str);

impl Frame {
    /// Appends the frame to a buffer.
    ///
    /// # Panics
    /// If the content is 4 GiB or longer. Readers cut pieces far below that.
    #[allow(clippy::expect_used, reason = "pieces are cut at the pipe's read size")]
    pub fn write(&self, buffer: &mut BytesMut) {
        buffer.reserve(HEADER_LEN + self.bytes.len());
        buffer.put_u8(match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        });
        buffer.put_u64(self.time_us);
        buffer.put_u32(u32::try_from(self.bytes.len()).expect("a frame is shorter than 4 GiB"));
        buffer.put_slice(&self.bytes);
    }

    /// Removes one frame from the front of a buffer; `None` if the buffer does not contain a whole frame.
    ///
    /// # Errors
    /// If the bytes are not frames.
    pub fn read(buffer: &mut Bytes) -> Result<Option<Self>, Error> {
        if buffer.len() < HEADER_LEN {
            return Ok(None);
        }
        let mut head = buffer.slice(..HEADER_LEN);
        let stream = match head.get_u8() {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return Err(Error("the stream is not 1 or 2")),
        };
        let time_us = head.get_u64();
        let len = head.get_u32() as usize;
        if buffer.len() < HEADER_LEN + len {
            return Ok(None);
        }
        buffer.advance(HEADER_LEN);
        Ok(Some(Self {
            stream,
            time_us,
            bytes: buffer.split_to(len),
        }))
    }

    /// All frames of a message or a stored segment.
    ///
    /// # Errors
    /// If the bytes are not whole frames.
    pub fn read_all(mut buffer: Bytes) -> Result<Vec<Self>, Error> {
        let mut frames = Vec::new();
        while let Some(frame) = Self::read(&mut buffer)? {
            frames.push(frame);
        }
        if buffer.is_empty() {
            Ok(frames)
        } else {
            Err(Error("the last frame is cut off"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let frames = [
            Frame {
                stream: Stream::Stdout,
                time_us: 1,
                bytes: Bytes::from_static(b"a\n"),
            },
            Frame {
                stream: Stream::Stderr,
                time_us: u64::MAX,
                bytes: Bytes::from_static(b"\xff\x00"),
            },
            Frame {
                stream: Stream::Stdout,
                time_us: 2,
                bytes: Bytes::new(),
            },
        ];
        let mut buffer = BytesMut::new();
        frames.iter().for_each(|frame| frame.write(&mut buffer));
        assert_eq!(Frame::read_all(buffer.freeze()), Ok(frames.to_vec()));
    }

    #[test]
    fn a_truncated_or_foreign_log_is_an_error() {
        let mut buffer = BytesMut::new();
        Frame {
            stream: Stream::Stdout,
            time_us: 1,
            bytes: Bytes::from_static(b"abc"),
        }
        .write(&mut buffer);
        let whole = buffer.freeze();
        assert!(Frame::read_all(whole.slice(..whole.len() - 1)).is_err());
        assert!(Frame::read_all(Bytes::from_static(b"hello, this is not a log")).is_err());
    }
}
