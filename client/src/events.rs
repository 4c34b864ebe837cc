//! Server-sent events, read from an answer as it comes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::BoxStream};
use reqwest::{Method, header};

use super::{Client, Error};

/// How long a stream may be silent before the connection counts as broken. The API says something every few seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its kind; `message` unless named.
    pub name: String,
    /// What it carries.
    pub data: String,
}

/// The connection broke, or fell silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection broke")]
pub struct Broken;

/// A stream of events.
pub struct Events {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
}

impl Events {
    /// Opens a stream, after the event with this id if there was one.
    pub async fn open(client: &Client, path: &str, query: &[(&str, String)], last_id: Option<&str>) -> Result<Self, Error> {
        let mut request = client
            .request(Method::GET, path)
            .query(query)
            .header(header::ACCEPT, "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = client.send(request).await?;
        Ok(Self {
            chunks: response.bytes_stream().boxed(),
            parser: Parser::default(),
        })
    }

    /// The next event; nothing when the stream ended. Loses nothing when dropped half-way.
    ///
    /// # Errors
    /// If the connection broke, or fell silent.
    pub async fn next(&mut self) -> Result<Option<Event>, Broken> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(Some(event));
            }
            match tokio::time::timeout(SILENCE, self.chunks.next()).await {
                Ok(Some(Ok(chunk))) => {
                    self.parser.push(&chunk);
                    if self.parser.held() > MAX_EVENT {
                        return Err(Broken);
                    }
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) | Err(_) => return Err(Broken),
            }
        }
    }

    /// The id of the last event that was given out.
    pub fn last_id(&self) -> Option<&str> {
        self.parser.last_id.as_deref()
    }
}

/// The longest event, in bytes: a piece of a log is far shorter.
const MAX_EVENT: usize = 32 << 20;

/// Bytes to events (the HTML standard, "Parsing an event stream").
#[derive(Debug, Default)]
struct Parser {
    buffer: BytesMut,
    /// How far the buffer was searched for the end of a line.
    searched: usize,
    name: String,
    data: String,
    has_data: bool,
    id: Option<String>,
    last_id: Option<String>,
}

impl Parser {
    /// How many bytes are kept of an event that is not at its end, or not asked for yet.
    fn held(&self) -> usize {
        self.buffer.len() + self.data.len() + self.name.len()
    }

    fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    fn next(&mut self) -> Option<Event> {
        while let Some(line) = self.line() {
            if !line.is_empty() {
                self.field(&line);
                continue;
            }
            if let Some(id) = self.id.take() {
                self.last_id = Some(id);
            }
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            if std::mem::take(&mut self.has_data) {
                return Some(Event {
                    name: if name.is_empty() { "message".to_owned() } else { name },
                    data,
                });
            }
        }
        None
    }

    fn line(&mut self) -> Option<Bytes> {
        let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.searched + at + 1).freeze();
        self.searched = 0;
        line.truncate(line.len() - 1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(line)
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &[][..]),
        };
        match name {
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(&String::from_utf8_lossy(value));
            }
            b"id" => self.id = Some(String::from_utf8_lossy(value).into_owned()),
            // A comment, a retry time, or a field of another version.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = b": hello\n\nevent: log\nid: 1:5\ndata: a\ndata:b\n\ndata\r\n\r\nid: 7\n\nevent: end\ndata: {}\n\n";
        let event = |name: &str, data: &str| Event {
            name: name.to_owned(),
            data: data.to_owned(),
        };
        let expected = [event("log", "a\nb"), event("message", ""), event("end", "{}")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                parser.push(chunk);
                found.extend(std::iter::from_fn(|| parser.next()));
            }
            assert_eq!(found, expected, "cut every {size}");
            assert_eq!(parser.last_id.as_deref(), Some("7"));
        }
    }

    #[test]
    fn an_event_that_is_cut_off_is_none() {
        let mut parser = Parser::default();
        parser.push(b"data: half\n");
        assert_eq!(parser.next(), None);
        assert_eq!(parser.last_id, None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_events_in_any_pieces(
            lines in vec(prop_oneof![Just(""), Just("data: a"), Just("data"), Just("event: log"), Just("id: 7"), Just(": c"), Just("\r"), Just("x: \u{fffd}")], 0..20),
            noise in vec((any::<Index>(), any::<u8>()), 0..6),
            cuts in vec(any::<Index>(), 0..8),
        ) {
            let mut text = lines.join("\n").into_bytes();
            for (at, byte) in noise {
                text.insert(at.index(text.len() + 1), byte);
            }
            let mut whole = Parser::default();
            whole.push(&text);
            let expected: Vec<_> = std::iter::from_fn(|| whole.next()).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let (mut parser, mut found) = (Parser::default(), Vec::new());
            for ends in cuts.windows(2) {
                parser.push(&text[ends[0]..ends[1]]);
                found.extend(std::iter::from_fn(|| parser.next()));
            }
            prop_assert_eq!(found, expected);
            prop_assert!(parser.held() <= text.len() + lines.len());
        }
    }
}
