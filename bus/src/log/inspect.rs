//! How the streams are, without changing anything.

use async_nats::jetstream;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    EVENTS,
    setup::{DEFINITIONS, Error, NOT_FOUND, mismatch, request},
    whole::Extent,
};
use crate::ids::Digest;

/// One of the streams, as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// Its name.
    pub stream: String,
    /// What the server says of it (`io.nats.jetstream.api.v1.stream_info_response`); nothing where it is not there.
    pub info: Option<Value>,
    /// The first field that is not as it must be: its name, what it is, and what it must be.
    pub mismatch: Option<(String, Value, Value)>,
}

impl Inspected {
    /// A number of the server's answer, by its path; 0 where it is not there.
    #[must_use]
    pub fn number(&self, path: &str) -> u64 {
        self.info
            .as_ref()
            .and_then(|info| info.pointer(path))
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }

    /// From where to where it goes, and how much of that is there.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent {
            first: self.number("/state/first_seq"),
            last: self.number("/state/last_seq"),
            messages: self.number("/state/messages"),
        }
    }

    /// How full it is, in hundredths of its bound; nothing where it has none.
    #[must_use]
    pub fn percent_full(&self) -> Option<u64> {
        let max = self.number("/config/max_bytes");
        (max > 0).then(|| self.number("/state/bytes").saturating_mul(100) / max)
    }
}

/// Asks the server about every stream.
///
/// # Errors
/// If it does not answer.
pub async fn inspect(js: &jetstream::Context) -> Result<Vec<Inspected>, Error> {
    let mut streams = Vec::with_capacity(DEFINITIONS.len());
    for text in DEFINITIONS {
        let wanted: Value = serde_json::from_str(text).map_err(Error::Definition)?;
        let stream = wanted["name"].as_str().unwrap_or_default().to_owned();
        let answer = request(js, &stream, "INFO", &json!({})).await?;
        let info = (answer["error"]["err_code"] != NOT_FOUND).then_some(answer);
        let mismatch = info.as_ref().and_then(|info| mismatch(&wanted, &info["config"]));
        streams.push(Inspected { stream, info, mismatch });
    }
    Ok(streams)
}

/// The payload that stands at a sequence of the log, whatever its headers and its subject are like: also of a message that cannot
/// be delivered. Nothing where there is none.
///
/// # Errors
/// If the server does not answer, or says something else.
pub async fn payload_at(js: &jetstream::Context, sequence: u64) -> Result<Option<Vec<u8>>, Error> {
    let message = message_at(js, sequence).await?;
    // An empty payload is left out.
    Ok(message.and_then(|message| STANDARD.decode(message["data"].as_str().unwrap_or_default()).ok()))
}

/// A digest of everything that stands at a sequence of the log: its subject, its headers, with them the id that it was published with,
/// its payload, and when it was stored. Nothing where there is none.
///
/// # Errors
/// If the server does not answer, or says something else.
pub async fn fingerprint_at(js: &jetstream::Context, sequence: u64) -> Result<Option<Digest>, Error> {
    let message = message_at(js, sequence).await?;
    Ok(message.map(|message| {
        let parts = ["subject", "hdrs", "data", "time"].map(|part| &message[part]);
        Digest::of(json!([sequence, parts]).to_string().as_bytes())
    }))
}

async fn message_at(js: &jetstream::Context, sequence: u64) -> Result<Option<Value>, Error> {
    /// No message found (`JSNoMessageFoundErr`).
    const NO_MESSAGE: u64 = 10_037;
    let mut answer = request(js, EVENTS, "MSG.GET", &json!({ "seq": sequence })).await?;
    match answer["error"]["err_code"].as_u64() {
        Some(NO_MESSAGE) => Ok(None),
        Some(_) => Err(Error::Refused {
            stream: EVENTS.to_owned(),
            reason: answer["error"]["description"].to_string(),
        }),
        None => Ok(Some(answer["message"].take())),
    }
}
