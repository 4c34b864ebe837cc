//! The live way of an attempt's log: a window, which may lose its beginning, and is allowed to fall behind.

use std::{collections::VecDeque, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{self, context::PublishAckFuture, message::PublishMessage},
};
use bus::frame::{Frame, HEADER_LEN};
use bytes::BytesMut;
use tokio::time::Instant;
use tracing::debug;

/// The largest message on the live subject; below the streams' `max_msg_size` of 1 MiB.
const MESSAGE_BYTES: usize = 256 << 10;
/// How long a printed byte waits for company before it goes out.
const LINGER: Duration = Duration::from_millis(15);
/// Live messages that may wait for their acknowledgement at once.
const LIVE_WINDOW: usize = 8;

/// Sends one attempt's frames as they come.
#[derive(Debug)]
pub(crate) struct Live {
    js: jetstream::Context,
    subject: String,
    buffer: BytesMut,
    /// Since when something waits in the buffer.
    since: Option<Instant>,
    /// Bytes of frames that were sent before.
    offset: u64,
    acks: VecDeque<PublishAckFuture>,
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
        }
    }

    /// Goes on where another left off, after so many bytes.
    pub(crate) const fn resume(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Sends what waits, and says how much was sent in all, for another to go on.
    pub(crate) async fn suspend(&mut self) -> u64 {
        if !self.buffer.is_empty() {
            self.flush().await;
        }
        self.settled().await;
        self.offset
    }

    /// When what waits is to be sent.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + LINGER)
    }

    /// Takes a frame; it waits for others a while.
    pub(crate) async fn push(&mut self, frame: &Frame) {
        if !self.buffer.is_empty() && self.buffer.len() + HEADER_LEN + frame.bytes.len() > MESSAGE_BYTES {
            self.flush().await;
        }
        frame.write(&mut self.buffer);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Sends what waits. Where the broker does not take it in time, a follower sees a gap, and the kept log has none.
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
        self.offset += payload.len() as u64;
        let message = PublishMessage::build().headers(headers).payload(payload);
        match self.js.send_publish(self.subject.clone(), message).await {
            Ok(ack) => self.acks.push_back(ack),
            Err(error) => debug!("a piece of the live log {} is lost: {error}", self.subject),
        }
        while self.acks.len() > LIVE_WINDOW {
            self.acknowledged().await;
        }
    }

    /// Sends what waits, and says that this was all.
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
        if let Some(ack) = self.acks.pop_front()
            && let Err(error) = ack.await
        {
            debug!("a piece of the live log {} may be lost: {error}", self.subject);
        }
    }
}
