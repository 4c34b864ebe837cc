//! How the streams are, without changing anything.

use async_nats::jetstream;
use serde_json::{Value, json};

use super::setup::{DEFINITIONS, Error, NOT_FOUND, mismatch, request};

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
