//! Inspecting the streams without changing them.

use async_nats::jetstream;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    EVENTS,
    completeness::Extent,
    setup::{DEFINITIONS, Error, NOT_FOUND, mismatch, request},
};
use crate::ids::Digest;

/// One stream, as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// The stream's name.
    pub stream: String,
    /// The server's description of the stream (`io.nats.jetstream.api.v1.stream_info_response`); `None` if it does not exist.
    pub info: Option<Value>,
    /// The first field that is not as required: its name, its value, and the required value.
    pub mismatch: Option<(String, Value, Value)>,
}

impl Inspected {
    /// A number in the server's description, by its path; 0 if it is missing.
    #[must_use]
    pub fn number(&self, path: &str) -> u64 {
        self.info
            .as_ref()
            .and_then(|info| info.pointer(path))
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }

    /// The first and the last sequence, and the number of messages.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent {
            first: self.number("/state/first_seq"),
            last: self.number("/state/last_seq"),
            messages: self.number("/state/messages"),
        }
    }

    /// How full the stream is, in hundredths of its bound; `None` if it has no bound.
    #[must_use]
    pub fn percent_full(&self) -> Option<u64> {
        let max = self.number("/config/max_bytes");
        (max > 0).then(|| self.number("/state/bytes").saturating_mul(100) / max)
    }
}

/// Inspects every stream.
///
/// # Errors
/// If the server does not answer.
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

/// The payload at a sequence of the log, whatever the message's headers and subject are: also of a message that cannot be delivered.
/// `None` if there is no message.
///
/// # Errors
/// If the server does not answer, or answers with an error.
pub async fn payload_at(js: &jetstream::Context, sequence: u64) -> Result<Option<Vec<u8>>, Error> {
    let message = message_at(js, sequence).await?;
    // The server leaves out an empty payload.
    Ok(message.and_then(|message| STANDARD.decode(message["data"].as_str().unwrap_or_default()).ok()))
}

/// A digest of the message at a sequence of the log: its subject, its headers (including its `Nats-Msg-Id`), its payload, and when it was
/// stored. `None` if there is no message.
///
/// # Errors
/// If the server does not answer, or answers with an error.
pub async fn fingerprint_at(js: &jetstream::Context, sequence: u64) -> Result<Option<Digest>, Error> {
    let message = message_at(js, sequence).await?;
    Ok(message.map(|message| {
        let parts = ["subject", "hdrs", "data", "time"].map(|part| &message[part]);
        Digest::of(json!([sequence, parts]).to_string().as_bytes())
    }))
}

async fn message_at(js: &jetstream::Context, sequence: u64) -> Result<Option<Value>, Error> {
    /// The server's error if there is no such message (`JSNoMessageFoundErr`).
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
