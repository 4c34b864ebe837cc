//! Reading a stream from a position without a consumer. The server keeps no state for such a reader, so there may be any number of
//! readers.

use std::time::Duration;

use async_nats::{Client, StatusCode, jetstream::message::StreamMessage};
use futures::StreamExt as _;
use serde_json::json;
use tokio::time::timeout;

use super::{
    ask::RECONNECTS_MAX,
    connect::{connection, unless_reconnected},
    puller::header,
    stored::{Error, Stored},
};

/// The size limit of one piece, in bytes. The server ends a piece with the message that exceeds the limit.
const PIECE_BYTES: usize = 4 << 20;
/// How long a piece may make no progress.
const STILL: Duration = Duration::from_secs(5);

/// A piece of a stream: successive messages.
#[derive(Debug, Default)]
pub struct Piece {
    /// The messages, oldest first.
    pub messages: Vec<Stored>,
    /// Whether there were no later messages when the piece was read, as far as the server that answered knew.
    pub is_last: bool,
}

/// The messages under a filter (one subject, with or without wildcards) after sequence `after`: at most `most`, and no more bytes than
/// can be held in memory. It uses a batched direct get (nats-server 2.11 and later), which any replica may answer.
///
/// # Errors
/// If the server does not answer.
pub async fn piece(client: &Client, stream: &str, filter: &str, after: u64, most: usize) -> Result<Piece, Error> {
    for _ in 0..RECONNECTS_MAX {
        if let Some(piece) = piece_unless_reconnected(client, stream, filter, after, most).await? {
            return Ok(piece);
        }
    }
    Err(Error::Silent {
        what: words(filter, after),
    })
}

fn words(filter: &str, after: u64) -> String {
    format!("{filter} behind sequence {after}")
}

/// Like [`piece`]; if the connection breaks, the part that arrived before. `None` if nothing arrived.
async fn piece_unless_reconnected(client: &Client, stream: &str, filter: &str, after: u64, most: usize) -> Result<Option<Piece>, Error> {
    let what = || words(filter, after);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Read { what: what(), source };
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(error.into()))?;
    let connection = connection(client);
    let ask = json!({ "seq": after + 1, "next_by_subj": filter, "batch": most, "max_bytes": PIECE_BYTES });
    client
        .publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, ask.to_string().into())
        .await
        .map_err(|error| failed(error.into()))?;
    let mut piece = Piece::default();
    let mut last = 0;
    loop {
        let answer = match unless_reconnected(client, connection, timeout(STILL, answers.next())).await {
            Some(Ok(Some(answer))) => answer,
            Some(Ok(None) | Err(_)) => return Err(Error::Silent { what: what() }),
            None => return Ok((!piece.messages.is_empty()).then_some(piece)),
        };
        let number = |name| header(&answer, name).and_then(|text| text.parse::<u64>().ok());
        match answer.status {
            None => {}
            Some(StatusCode::NOT_FOUND) => {
                piece.is_last = true;
                return Ok(Some(piece));
            }
            // The end of the batch. It has the number of messages after it.
            Some(status) if status.as_u16() == 204 => {
                piece.is_last = number("Nats-Num-Pending") == Some(0);
                return Ok(Some(piece));
            }
            Some(status) => {
                return Err(failed(
                    format!("the server answered {status} {}", answer.description.unwrap_or_default()).into(),
                ));
            }
        }
        // Each message names the one before it. If one was lost, the messages before it are used, and the rest is read again.
        if !piece.messages.is_empty() && number("Nats-Last-Sequence").is_some_and(|before| before != last) {
            return Ok(Some(piece));
        }
        let message = StreamMessage::try_from(answer).map_err(|error| failed(error.into()))?;
        last = message.sequence;
        piece.messages.push(message.into());
    }
}
