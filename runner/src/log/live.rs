//! The live log of an attempt: a window, which may lose its beginning, and may fall behind.

use std::{collections::VecDeque, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{self, context::PublishAckFuture, message::PublishMessage},
};
use bus::{
    log::LOGS,
    output::frame::{Frame, HEADER_LEN},
};
use bytes::BytesMut;
use serde_json::json;
use tokio::time::Instant;
use tracing::debug;

/// The largest message on the live subject; below the streams' `max_msg_size` of 1 MiB.
const MESSAGE_BYTES: usize = 256 << 10;
/// How long a byte may be buffered before it is sent.
const LINGER: Duration = Duration::from_millis(15);
/// Live messages that may wait for their acknowledgement at once.
const LIVE_WINDOW: usize = 8;
/// How much of one attempt stays on the live subject, in bytes. All attempts share a stream of 1 GiB, which one attempt must not fill.
const MOST_KEPT: u64 = 32 << 20;

/// Sends one attempt's frames.
#[derive(Debug)]
pub(crate) struct Live {
    js: jetstream::Context,
    subject: String,
    buffer: BytesMut,
    /// Since when bytes are buffered.
    since: Option<Instant>,
    /// Bytes of frames that were sent before.
    offset: u64,
    /// The messages that are not acknowledged, with their sizes.
    acks: VecDeque<(PublishAckFuture, u64)>,
    kept: Window,
}

/// What is on the live subject, as far as it is known: the sequence and the bytes of each message, oldest first.
#[derive(Debug, Default)]
struct Window {
    messages: VecDeque<(u64, u64)>,
    bytes: u64,
}

impl Window {
    /// Adds a message. Returns the first message to keep once the window has grown beyond [`MOST_KEPT`]; half of the window is removed then,
    /// so that this is rare.
    fn add(&mut self, sequence: u64, bytes: u64) -> Option<u64> {
        self.messages.push_back((sequence, bytes));
        self.bytes += bytes;
        if self.bytes <= MOST_KEPT {
            return None;
        }
        while self.bytes > MOST_KEPT / 2 && self.messages.len() > 1 {
            let (_, bytes) = self.messages.pop_front()?;
            self.bytes -= bytes;
        }
        self.messages.front().map(|(sequence, _)| *sequence)
    }
}

impl Live {
    /// Sends on this subject.
    #[must_use]
    pub(crate) fn new(js: &jetstream::Context, subject: String) -> Self {
        Self {
            js: js.clone(),
            subject,
            buffer: BytesMut::new(),
            since: None,
            offset: 0,
            acks: VecDeque::new(),
            kept: Window::default(),
        }
    }

    /// Continues after the bytes that an earlier runner sent.
    pub(crate) const fn resume(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Sends the buffered bytes, and returns how many were sent in all, for the next runner.
    pub(crate) async fn suspend(&mut self) -> u64 {
        if !self.buffer.is_empty() {
            self.flush().await;
        }
        self.settled().await;
        self.offset
    }

    /// When the buffered bytes are to be sent.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + LINGER)
    }

    /// Buffers a frame.
    pub(crate) async fn push(&mut self, frame: &Frame) {
        if !self.buffer.is_empty() && self.buffer.len() + HEADER_LEN + frame.bytes.len() > MESSAGE_BYTES {
            self.flush().await;
        }
        frame.write(&mut self.buffer);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Sends the buffered bytes. Where the server does not acknowledge them in time, a follower sees a gap, and the stored log has none.
    pub(crate) async fn flush(&mut self) {
        self.send(false).await;
    }

    async fn send(&mut self, last: bool) {
        self.since = None;
        let mut headers = HeaderMap::new();
        headers.insert("Rgrid-Offset", self.offset.to_string());
        if last {
            headers.insert("Rgrid-Log", "end");
        }
        let payload = self.buffer.split().freeze();
        let bytes = payload.len() as u64;
        self.offset += bytes;
        let message = PublishMessage::build().headers(headers).payload(payload);
        match self.js.send_publish(self.subject.clone(), message).await {
            Ok(ack) => self.acks.push_back((ack, bytes)),
            Err(error) => debug!("a piece of the live log {} is lost: {error}", self.subject),
        }
        while self.acks.len() > LIVE_WINDOW {
            self.acknowledged().await;
        }
    }

    /// Sends the buffered bytes, and the end of the log.
    pub(crate) async fn finish(&mut self) {
        if self.offset == 0 && self.buffer.is_empty() {
            return;
        }
        self.send(true).await;
        self.settled().await;
    }

    async fn settled(&mut self) {
        while !self.acks.is_empty() {
            self.acknowledged().await;
        }
    }

    async fn acknowledged(&mut self) {
        let Some((ack, bytes)) = self.acks.pop_front() else { return };
        match ack.await {
            Ok(ack) => {
                if let Some(first) = self.kept.add(ack.sequence, bytes) {
                    self.forget_before(first).await;
                }
            }
            Err(error) => debug!("a piece of the live log {} may be lost: {error}", self.subject),
        }
    }

    /// Removes the messages before a sequence from the live subject, without waiting for the answer: what stays now is removed next time.
    async fn forget_before(&self, sequence: u64) {
        let ask = json!({ "filter": self.subject, "seq": sequence }).to_string();
        let purge = format!("$JS.API.STREAM.PURGE.{LOGS}");
        if let Err(error) = self.js.client().publish(purge, ask.into()).await {
            debug!("the beginning of the live log {} stays: {error}", self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_grew_too_large_loses_its_older_half() {
        let (mut window, mib) = (Window::default(), 1 << 20);
        for sequence in 1..=32 {
            assert_eq!(window.add(sequence, mib), None, "{sequence}");
        }
        assert_eq!(window.add(33, mib), Some(18), "16 of 33 stay");
        for sequence in 34..=49 {
            assert_eq!(window.add(sequence, mib), None, "{sequence}");
        }
        assert_eq!(window.add(50, mib), Some(35));
        // One message is never too much, whatever its size.
        let mut window = Window::default();
        assert_eq!(window.add(1, 2 * MOST_KEPT), Some(1));
    }
}
