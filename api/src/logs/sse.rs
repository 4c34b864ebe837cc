//! A log as events: text where it is text, base64 where it is not, so that every byte can be had back.

use axum::response::sse::Event;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bus::frame::{Frame, HEADER_LEN, Stream as Which};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use super::{cursor::Cursor, source::Item};
use crate::{
    error::{Kind, Problem},
    produce::event,
    view::{LogAttempt, LogGap, LogPiece},
};

/// Writes a log down, with the cursor behind each event for its `id:`.
struct Writer {
    cursor: Cursor,
    only: Option<Which>,
    /// Whether the first attempt was told of.
    begun: bool,
    /// When the last frame was read.
    time_us: u64,
}

/// The events of a log; `cursor` is where reading goes on.
pub(super) fn render(
    items: impl Stream<Item = Item> + Send + 'static,
    cursor: Cursor,
    only: Option<Which>,
) -> impl Stream<Item = Vec<Event>> + Send + 'static {
    let mut writer = Writer {
        cursor,
        only,
        begun: false,
        time_us: 0,
    };
    items.map(move |item| writer.write(item))
}

impl Writer {
    fn write(&mut self, item: Item) -> Vec<Event> {
        let mut events = Vec::new();
        match item {
            Item::Attempt(attempt, offset) => {
                if self.begun {
                    self.flush(&mut events);
                }
                self.begun = true;
                // What a reader who comes back had held back goes on here, if this is where it was.
                if (self.cursor.attempt, self.cursor.offset) != (Some(attempt), offset) {
                    self.cursor = Cursor {
                        attempt: Some(attempt),
                        offset,
                        ..Cursor::default()
                    };
                }
                events.push(event("attempt", &LogAttempt { attempt }).id(self.cursor.to_string()));
            }
            Item::Frames(bytes) => self.frames(bytes, &mut events),
            Item::Gap(bytes) => {
                self.flush(&mut events);
                self.cursor.offset += bytes;
                events.push(event("gap", &LogGap { bytes }).id(self.cursor.to_string()));
            }
            Item::End(job) => {
                self.flush(&mut events);
                events.push(event("end", &job));
            }
            Item::Failed(problem) => events.push(event("error", &problem)),
        }
        events
    }

    fn frames(&mut self, bytes: Bytes, events: &mut Vec<Event>) {
        let Ok(frames) = Frame::read_all(bytes) else {
            events.push(event("error", &Problem::new(Kind::Internal, "the log is not made of frames")));
            return;
        };
        for frame in frames {
            self.cursor.offset += (HEADER_LEN + frame.bytes.len()) as u64;
            self.time_us = frame.time_us;
            if self.only.is_none_or(|only| only == frame.stream) {
                let piece = self.piece(&frame);
                events.extend(piece.map(|piece| event("log", &piece).id(self.cursor.to_string())));
            }
        }
    }

    /// What can be told of a frame: a character that is cut off at its end is held back until the next one of its stream.
    fn piece(&mut self, frame: &Frame) -> Option<LogPiece> {
        let held = self.cursor.held(frame.stream);
        let mut bytes = std::mem::take(held);
        bytes.extend_from_slice(&frame.bytes);
        let text = match std::str::from_utf8(&bytes) {
            Ok(_) => Some(bytes.len()),
            Err(error) if error.error_len().is_none() => Some(error.valid_up_to()),
            Err(_) => None,
        };
        if let Some(end) = text {
            *held = bytes.split_off(end);
        }
        if bytes.is_empty() {
            return None;
        }
        Some(piece(frame.stream, frame.time_us, bytes))
    }

    /// Tells what is held back: no more of it comes.
    fn flush(&mut self, events: &mut Vec<Event>) {
        for stream in [Which::Stdout, Which::Stderr] {
            let held = std::mem::take(self.cursor.held(stream));
            if !held.is_empty() {
                events.push(event("log", &piece(stream, self.time_us, held)).id(self.cursor.to_string()));
            }
        }
    }
}

fn piece(stream: Which, time_us: u64, bytes: Vec<u8>) -> LogPiece {
    let (text, base64) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    LogPiece {
        stream,
        time_us,
        text,
        base64,
    }
}

#[cfg(test)]
mod tests {
    use bus::ids::Attempt;
    use bytes::BytesMut;

    use super::*;

    fn frame(stream: Which, bytes: &[u8]) -> Item {
        let mut buffer = BytesMut::new();
        Frame {
            stream,
            time_us: 5,
            bytes: Bytes::copy_from_slice(bytes),
        }
        .write(&mut buffer);
        Item::Frames(buffer.freeze())
    }

    /// The pieces of what a writer writes, by their rendered text: axum's events do not show what they hold.
    fn pieces(writer: &mut Writer, item: Item) -> Vec<LogPiece> {
        let Item::Frames(bytes) = item else { return Vec::new() };
        let frames = Frame::read_all(bytes).expect("frames");
        frames.iter().filter_map(|frame| writer.piece(frame)).collect()
    }

    #[test]
    fn a_character_that_is_cut_between_frames_comes_whole_and_binary_comes_exact() {
        let mut writer = Writer {
            cursor: Cursor {
                attempt: Some(Attempt(1)),
                ..Cursor::default()
            },
            only: None,
            begun: false,
            time_us: 0,
        };
        let euro = "€".as_bytes();
        let first = pieces(&mut writer, frame(Which::Stdout, &[b"a", &euro[..2]].concat()));
        assert_eq!(first[0].text.as_deref(), Some("a"));
        // The other stream does not come between.
        assert_eq!(pieces(&mut writer, frame(Which::Stderr, b"e"))[0].text.as_deref(), Some("e"));
        assert!(writer.cursor.to_string().ends_with(":e282:"), "{}", writer.cursor);
        let second = pieces(&mut writer, frame(Which::Stdout, &[&euro[2..], b"b"].concat()));
        assert_eq!(second[0].text.as_deref(), Some("€b"));
        let binary = pieces(&mut writer, frame(Which::Stdout, b"\xff\xfe"));
        assert_eq!((binary[0].text.as_deref(), binary[0].base64.as_deref()), (None, Some("//4=")));
    }
}
