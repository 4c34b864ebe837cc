//! Reading a stream on from a position without a consumer: the server keeps nothing of such a reader, so that there may be any number.

use std::time::Duration;

use async_nats::{Client, StatusCode, jetstream::message::StreamMessage};
use futures::StreamExt as _;
use serde_json::json;
use tokio::time::timeout;

use super::{
    ask::CUTS,
    connect::{connection, unless_cut},
    puller::header,
    stored::{Error, Stored},
};

/// The most bytes of one piece: the server ends it with the message that goes beyond.
const PIECE_BYTES: usize = 4 << 20;
/// How long a piece may stand still.
const STILL: Duration = Duration::from_secs(5);

/// Messages that stand one behind the other.
#[derive(Debug, Default)]
pub struct Piece {
    /// The messages, oldest first.
    pub messages: Vec<Stored>,
    /// Whether nothing stood behind them when they were read, as far as the server knew that answered.
    pub is_last: bool,
}

/// The messages under a filter (one subject, with wildcards or not) that stand behind sequence `after`, `most` of them at most, and at
/// most so many bytes of them as can be held. By a batched direct get (nats-server 2.11 and later), which any replica may answer.
///
/// # Errors
/// If the server does not answer.
pub async fn piece(client: &Client, stream: &str, filter: &str, after: u64, most: usize) -> Result<Piece, Error> {
    for _ in 0..CUTS {
        if let Some(piece) = piece_unless_cut(client, stream, filter, after, most).await? {
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

/// As [`piece`], or what came of it before the connection broke; nothing where that is nothing.
async fn piece_unless_cut(client: &Client, stream: &str, filter: &str, after: u64, most: usize) -> Result<Option<Piece>, Error> {
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
        let answer = match unless_cut(client, connection, timeout(STILL, answers.next())).await {
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
            // The end of a batch, which says how many stand behind it.
            Some(status) if status.as_u16() == 204 => {
                piece.is_last = number("Nats-Num-Pending") == Some(0);
                return Ok(Some(piece));
            }
            Some(status) => {
                return Err(failed(
                    format!("the server says {status} {}", answer.description.unwrap_or_default()).into(),
                ));
            }
        }
        // Each names the one before it. Where one was lost on the way, what came before counts, and the rest is read again.
        if !piece.messages.is_empty() && number("Nats-Last-Sequence").is_some_and(|before| before != last) {
            return Ok(Some(piece));
        }
        let message = StreamMessage::try_from(answer).map_err(|error| failed(error.into()))?;
        last = message.sequence;
        piece.messages.push(message.into());
    }
}
