//! What the sender of a submission is told, and what is kept of one that was refused.

use async_nats::{
    Client,
    jetstream::{self, message::PublishMessage},
};
use bus::{ids::Namespace, log::REFUSED, subjects};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tracing::{info, warn};

use crate::error::ApiError;

/// Names the subject that the answer goes to: the reply subject of a `JetStream` publish belongs to its acknowledgement.
pub(super) const REPLY_TO: &str = "Rgrid-Reply-To";
/// Where refusals go that no namespace can be named for.
const SYSTEM: &str = subjects::REFUSED_NOWHERE;
/// How much of a refused body is kept, in bytes.
const KEPT: usize = 16 << 10;

/// What is kept of a submission that was refused, on `rgrid.refused.<namespace>`.
#[derive(Debug, Serialize)]
pub(super) struct Refused<'a> {
    time: DateTime<Utc>,
    subject: &'a str,
    /// Where it stood in the inbox.
    sequence: u64,
    reason: &'a str,
    /// The body as text, cut.
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
            body: String::from_utf8_lossy(&body[..body.len().min(KEPT)]).into_owned(),
            body_bytes: body.len(),
        }
    }
}

/// Keeps a refusal. One that no namespace can be named for is kept among the grid's own.
pub(super) async fn record(js: &jetstream::Context, namespace: Option<&Namespace>, refused: &Refused<'_>) -> Result<(), ApiError> {
    info!(
        "refused the submission at {} of the inbox, on {}: {}",
        refused.sequence, refused.subject, refused.reason
    );
    let subject = namespace.map_or_else(|| SYSTEM.to_owned(), subjects::refused);
    let unkept =
        |error: &(dyn std::error::Error + 'static)| ApiError::unavailable(&format!("the refusal cannot be kept in {REFUSED}"), error);
    let payload = serde_json::to_vec(refused).map_err(|error| unkept(&error))?;
    // Delivered again within two minutes, it is kept once.
    let message = PublishMessage::build()
        .message_id(format!("inbox:{}", refused.sequence))
        .payload(payload.into());
    let sent = js.send_publish(subject, message).await.map_err(|error| unkept(&error))?;
    sent.await.map(|_| ()).map_err(|error| unkept(&error))
}

/// Answers, if the sender named where to.
pub(super) async fn send(client: &Client, to: Option<&str>, answer: &impl Serialize) {
    let Some(to) = to else { return };
    if !may_answer_on(to) {
        warn!(
            "a submission asks for its answer on `{}`, which is no subject for that",
            to.escape_debug()
        );
        return;
    }
    match serde_json::to_vec(answer) {
        Ok(payload) => {
            if let Err(error) = client.publish(to.to_owned(), payload.into()).await {
                warn!("an answer to {to} could not be sent: {error}");
            }
        }
        Err(error) => warn!("an answer to {to} could not be written: {error}"),
    }
}

/// Whether this is a subject that a sender may have us publish to: ours and the server's own are not, since we may say there
/// what the sender may not.
fn may_answer_on(subject: &str) -> bool {
    let token_fits =
        |token: &str| !token.is_empty() && !token.contains(['*', '>']) && !token.chars().any(|c| c.is_whitespace() || c.is_control());
    let first = subject.split('.').next().unwrap_or_default();
    subject.len() <= 1024 && subject.split('.').all(token_fits) && !first.starts_with('$') && first != "rgrid"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_never_goes_where_the_sender_could_not_speak() {
        assert!(may_answer_on("_INBOX.abc.1"));
        assert!(may_answer_on("my.service.answers"));
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
            assert!(!may_answer_on(bad), "{bad}");
        }
    }
}
