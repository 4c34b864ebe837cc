//! Server-sent events.
//!
//! Written here and not by axum's `Event`, which makes a piece of the answer of each one and looks for line breaks in each
//! scrap of JSON: a chatty log came at 7 MB/s, and comes at more than ten times that.

use std::{fmt::Display, io::Write as _, pin::pin, time::Duration};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;

/// How long nothing is sent before a comment is, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events that are sent as one piece.
#[derive(Debug, Default)]
pub(crate) struct Events(Vec<u8>);

impl Events {
    /// An event of a kind, with where a reader is behind it, and JSON for data: that has no line breaks.
    pub(crate) fn push(&mut self, kind: &str, id: Option<&dyn Display>, data: &impl Serialize) {
        let before = self.0.len();
        let written = self
            .head(Some(kind), id)
            .and_then(|()| Ok(serde_json::to_writer(&mut self.0, data)?));
        self.0.extend_from_slice(b"\n\n");
        // Views hold only what JSON can carry, and memory takes every write.
        if written.is_err() {
            self.0.truncate(before);
        }
    }

    /// An event without a kind, of data in pieces that together are one line.
    pub(crate) fn push_line(&mut self, id: impl Display, pieces: &[&str]) {
        // Memory takes every write.
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

    /// How many bytes they have.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The answer that carries events, kept alive by comments.
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
        // nginx holds answers back otherwise.
        ("x-accel-buffering", "no"),
    ];
    (headers, body).into_response()
}
