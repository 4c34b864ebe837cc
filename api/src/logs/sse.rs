//! A log as server-sent events: text as text, other bytes as base64, so that no byte is lost.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bus::output::frame::{Frame, HEADER_LEN, Stream as Which};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use model::{Kind, LogAttempt, LogGap};
use serde::Serialize;

use super::{cursor::Cursor, source::Item};
use crate::{error::ApiError, http::sse::Events};

/// Renders a log. The `id:` of each event is the cursor after it.
struct Renderer {
    cursor: Cursor,
    only: Option<Which>,
    /// Whether the first attempt was announced.
    begun: bool,
    /// The time of the last frame.
    time_us: u64,
}

/// The events of a log, from `cursor` on.
pub(super) fn render(
    items: impl Stream<Item = Item> + Send + 'static,
    cursor: Cursor,
    only: Option<Which>,
) -> impl Stream<Item = Events> + Send + 'static {
    let mut renderer = Renderer {
        cursor,
        only,
        begun: false,
        time_us: 0,
    };
    items.map(move |item| renderer.render(item))
}

impl Renderer {
    fn render(&mut self, item: Item) -> Events {
        let mut events = Events::default();
        match item {
            Item::Attempt(attempt, offset) => {
                if self.begun {
                    self.flush(&mut events);
                }
                self.begun = true;
                // A reader that reconnects at this position continues with the bytes that were held back.
                if (self.cursor.attempt, self.cursor.offset) != (Some(attempt), offset) {
                    self.cursor = Cursor {
                        attempt: Some(attempt),
                        offset,
                        ..Cursor::default()
                    };
                }
                events.push("attempt", Some(&self.cursor), &LogAttempt { attempt });
            }
            Item::Frames(bytes) => self.frames(bytes, &mut events),
            Item::Gap(bytes) => {
                self.flush(&mut events);
                self.cursor.offset += bytes;
                events.push("gap", Some(&self.cursor), &LogGap { bytes });
            }
            Item::Waiting(job) => {
                self.flush(&mut events);
                events.push("waiting", None, &job);
            }
            Item::End(job) => {
                self.flush(&mut events);
                events.push("end", None, &job);
            }
            Item::Failed(problem) => events.push("error", None, &problem),
        }
        events
    }

    fn frames(&mut self, bytes: Bytes, events: &mut Events) {
        let Ok(frames) = Frame::read_all(bytes) else {
            events.push("error", None, &ApiError::new(Kind::Internal, "the log does not consist of frames"));
            return;
        };
        for frame in frames {
            self.cursor.offset += (HEADER_LEN + frame.bytes.len()) as u64;
            self.time_us = frame.time_us;
            if self.only.is_none_or(|only| only == frame.stream) {
                let bytes = self.joined(&frame);
                if !bytes.is_empty() {
                    piece(events, &self.cursor, &frame, &bytes);
                }
            }
        }
    }

    /// The bytes to send with a frame: an incomplete character at its end is held back until the next frame of its stream.
    fn joined(&mut self, frame: &Frame) -> Bytes {
        let held = self.cursor.held(frame.stream);
        let mut bytes = if held.is_empty() {
            frame.bytes.clone()
        } else {
            [&std::mem::take(held), &frame.bytes[..]].concat().into()
        };
        if let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            *held = bytes.split_off(error.valid_up_to()).into();
        }
        bytes
    }

    /// Sends the bytes that were held back: the rest will not come.
    fn flush(&mut self, events: &mut Events) {
        for stream in [Which::Stdout, Which::Stderr] {
            let held = std::mem::take(self.cursor.held(stream));
            if !held.is_empty() {
                let bytes = Bytes::from(held);
                let frame = Frame {
                    stream,
                    time_us: self.time_us,
                    bytes: bytes.clone(),
                };
                piece(events, &self.cursor, &frame, &bytes);
            }
        }
    }
}

/// A [`model::LogPiece`] that borrows its text.
#[derive(Serialize)]
struct Piece<'a> {
    stream: Which,
    time_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Adds the event of these bytes.
fn piece(events: &mut Events, cursor: &Cursor, frame: &Frame, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).ok();
    let piece = Piece {
        stream: frame.stream,
        time_us: frame.time_us,
        text,
        base64: text.is_none().then(|| BASE64_STANDARD.encode(bytes)),
    };
    events.push("log", Some(cursor), &piece);
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

    /// The events of an item.
    fn rendered(renderer: &mut Renderer, item: Item) -> String {
        let events = renderer.render(item);
        String::from_utf8(events.bytes()).expect("text")
    }

    #[test]
    fn a_character_that_is_cut_between_frames_comes_whole_and_binary_comes_exact() {
        let mut renderer = Renderer {
            cursor: Cursor {
                attempt: Some(Attempt(1)),
                ..Cursor::default()
            },
            only: None,
            begun: false,
            time_us: 0,
        };
        let euro = "€".as_bytes();
        assert_eq!(
            rendered(&mut renderer, frame(Which::Stdout, &[b"a\n", &euro[..2]].concat())),
            "event: log\nid: 1:17:e282:\ndata: {\"stream\":\"stdout\",\"time_us\":5,\"text\":\"a\\n\"}\n\n"
        );
        // Frames of the other stream do not interfere.
        assert!(rendered(&mut renderer, frame(Which::Stderr, b"e")).contains("id: 1:31:e282:\n"));
        assert!(rendered(&mut renderer, frame(Which::Stdout, &[&euro[2..], b"b"].concat())).contains(r#""text":"€b""#));
        let binary = rendered(&mut renderer, frame(Which::Stdout, b"\xff\xfe"));
        assert!(binary.contains(r#""base64":"//4=""#) && !binary.contains("text"), "{binary}");
        // Held back bytes are sent with the end at the latest.
        assert_eq!(rendered(&mut renderer, frame(Which::Stdout, &euro[..1])), "");
        assert!(rendered(&mut renderer, Item::Gap(5)).contains(r#""base64":"4g==""#));
    }
}
