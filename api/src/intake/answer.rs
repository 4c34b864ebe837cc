//! The answer to the sender of a submission, and the record of a refused one.

use async_nats::{
    Client,
    jetstream::{self, message::PublishMessage},
};
use bus::{ids::Namespace, log::REFUSED, subjects};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tracing::{info, warn};

use crate::error::ApiError;

/// The header that names the subject for the answer: the reply subject of a `JetStream` publish is for its acknowledgement.
pub(super) const REPLY_TO: &str = "Rgrid-Reply-To";
/// The subject of refusals whose namespace is not known.
const NO_NAMESPACE: &str = subjects::REFUSED_NOWHERE;
/// How much of a refused body is recorded, in bytes.
const BODY_MAX: usize = 16 << 10;

/// The record of a refused submission, on `rgrid.refused.<namespace>`.
#[derive(Debug, Serialize)]
pub(super) struct Refused<'a> {
    time: DateTime<Utc>,
    subject: &'a str,
    /// Its sequence in the inbox.
    sequence: u64,
    reason: &'a str,
    /// The beginning of the body, as text.
    body: String,
    /// The whole body's length in bytes.
    body_bytes: usize,
}

impl<'a> Refused<'a> {
    pub(super) fn new(subject: &'a str, sequence: u64, problem: &'a ApiError, body: &[u8]) -> Self {
        Self {
            time: Utc::now(),
            subject,
            sequence,
            reason: &problem.detail,
            body: String::from_utf8_lossy(&body[..body.len().min(BODY_MAX)]).into_owned(),
            body_bytes: body.len(),
        }
    }
}

/// Records a refusal.
pub(super) async fn record(js: &jetstream::Context, namespace: Option<&Namespace>, refused: &Refused<'_>) -> Result<(), ApiError> {
    info!(
        "refused the submission at sequence {} of the inbox, on {}: {}",
        refused.sequence, refused.subject, refused.reason
    );
    let subject = namespace.map_or_else(|| NO_NAMESPACE.to_owned(), subjects::refused);
    let failed =
        |error: &(dyn std::error::Error + 'static)| ApiError::unavailable(&format!("cannot record the refusal in {REFUSED}"), error);
    let payload = serde_json::to_vec(refused).map_err(|error| failed(&error))?;
    // If the message is delivered again within two minutes, the refusal is recorded once.
    let message = PublishMessage::build()
        .message_id(format!("inbox:{}", refused.sequence))
        .payload(payload.into());
    let sent = js.send_publish(subject, message).await.map_err(|error| failed(&error))?;
    sent.await.map(|_| ()).map_err(|error| failed(&error))
}

/// Sends the answer, if the sender named a subject for it.
pub(super) async fn send(client: &Client, to: Option<&str>, answer: &impl Serialize) {
    let Some(to) = to else { return };
    if !is_allowed_reply(to) {
        warn!(
            "a submission asks for its answer on `{}`, which is not an allowed subject",
            to.escape_debug()
        );
        return;
    }
    match serde_json::to_vec(answer) {
        Ok(payload) => {
            if let Err(error) = client.publish(to.to_owned(), payload.into()).await {
                warn!("cannot send an answer to {to}: {error}");
            }
        }
        Err(error) => warn!("cannot serialize an answer to {to}: {error}"),
    }
}

/// Whether a sender may have the API publish to this subject. The subjects of rgrid and of the server are not allowed, since the API has
/// permissions there that the sender does not have.
fn is_allowed_reply(subject: &str) -> bool {
    let token_fits =
        |token: &str| !token.is_empty() && !token.contains(['*', '>']) && !token.chars().any(|c| c.is_whitespace() || c.is_control());
    let first = subject.split('.').next().unwrap_or_default();
    subject.len() <= 1024 && subject.split('.').all(token_fits) && !first.starts_with('$') && first != "rgrid"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_never_goes_to_a_subject_of_rgrid_or_of_the_server() {
        assert!(is_allowed_reply("_INBOX.abc.1"));
        assert!(is_allowed_reply("my.service.answers"));
        for bad in [
            "",
            "rgrid.evt.default.job.x.by.api",
            "$JS.API.STREAM.DELETE.RGRID_EVENTS",
            "a..b",
            "a.*",
            "a.>",
            "a b",
            "a\r\nPUB x",
        ] {
            assert!(!is_allowed_reply(bad), "{bad}");
        }
    }
}
