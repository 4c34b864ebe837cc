//! Server-sent events.
//!
//! Not axum's `Event`, which makes every event a chunk of its own and searches its JSON for line breaks: a verbose log was sent at 7 MB/s
//! with it, and is sent at more than ten times that rate here.

use std::{fmt::Display, io::Write as _, pin::pin, time::Duration};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;

/// After how long without an event a comment is sent, so that no proxy closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events that are sent as one chunk.
#[derive(Debug, Default)]
pub(crate) struct Events(Vec<u8>);

impl Events {
    /// Adds an event of a kind. `id` is the reader's position after it; the data is JSON, which has no line breaks.
    pub(crate) fn push(&mut self, kind: &str, id: Option<&dyn Display>, data: &impl Serialize) {
        let before = self.0.len();
        let written = self
            .head(Some(kind), id)
            .and_then(|()| Ok(serde_json::to_writer(&mut self.0, data)?));
        self.0.extend_from_slice(b"\n\n");
        // Cannot fail: the views can be serialized, and the buffer grows.
        if written.is_err() {
            self.0.truncate(before);
        }
    }

    /// Adds an event without a kind. The pieces together are one line of data.
    pub(crate) fn push_line(&mut self, id: impl Display, pieces: &[&str]) {
        // Cannot fail: the buffer grows.
        let _infallible = self.head(None, Some(&id));
        for piece in pieces {
            self.0.extend_from_slice(piece.as_bytes());
        }
        self.0.extend_from_slice(b"\n\n");
    }

    fn head(&mut self, kind: Option<&str>, id: Option<&dyn Display>) -> std::io::Result<()> {
        if let Some(kind) = kind {
            writeln!(self.0, "event: {kind}")?;
        }
        if let Some(id) = id {
            writeln!(self.0, "id: {id}")?;
        }
        self.0.write_all(b"data: ")
    }

    #[cfg(test)]
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }

    /// Their length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no events.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An answer that streams events, with comments as keep-alive.
pub(crate) fn respond(events: impl Stream<Item = Events> + Send + 'static) -> Response {
    let pieces = stream::unfold(Box::pin(events), |mut events| async {
        let next = {
            let next = pin!(events.next());
            tokio::time::timeout(KEEP_ALIVE, next).await
        };
        match next {
            Ok(Some(Events(bytes))) => Some((Bytes::from(bytes), events)),
            Ok(None) => None,
            Err(_) => Some((Bytes::from_static(b":\n\n"), events)),
        }
    });
    let body = Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>));
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-cache"),
        // Otherwise nginx buffers the answer.
        ("x-accel-buffering", "no"),
    ];
    (headers, body).into_response()
}
