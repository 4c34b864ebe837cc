//! Processes one message of the inbox.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use bus::{
    ids::{Namespace, Queue},
    log::{INBOX, puller::header, relay},
    spec::{Refusal, submission},
    subjects,
};
use model::{Kind, Submitted};
use tracing::debug;

use super::answer::{self, Refused};
use crate::{
    admission::admit,
    app::App,
    error::ApiError,
    http::extract,
    jobs::{NewJob, check_inputs, check_references, store_inline},
};

/// How long one message may take.
const PROCESS_MAX: Duration = Duration::from_secs(25);
/// How often the server is notified that a message is in progress. It delivers a message again after 5 s without a notice, so that the
/// messages of an intake that died come back soon.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// The pause before a submission that could not be stored is delivered again.
const REDELIVERY_DELAY: Duration = Duration::from_secs(2);

/// A message of the inbox: where its job goes, and its identity.
struct InboxMessage {
    namespace: Namespace,
    queue: Queue,
    /// The key of its job, unless its body has one: the same at every delivery.
    derived_key: String,
}

/// Processes a message: its job or its refusal is stored, its sender is answered, and the message is acknowledged.
///
/// # Errors
/// If nothing could be stored; the server will deliver the message again.
pub(super) async fn process(app: &App, message: Message) -> Result<(), ApiError> {
    let processed = tokio::time::timeout(PROCESS_MAX, store_with_progress(app, &message)).await;
    match processed.unwrap_or_else(|_| Err(ApiError::new(Kind::Unavailable, "it took too long"))) {
        Ok(()) => {
            // If the acknowledgement is lost, the message is delivered again, and its job is found to exist.
            if let Err(error) = message.double_ack().await {
                debug!(
                    "the submission on {} is stored, and its message could not be acknowledged: {error}",
                    message.subject
                );
            }
            Ok(())
        }
        Err(problem) => {
            if let Err(error) = message.ack_with(AckKind::Nak(Some(REDELIVERY_DELAY))).await {
                debug!(
                    "the submission on {} could not be rejected for redelivery: {error}",
                    message.subject
                );
            }
            Err(problem)
        }
    }
}

/// Stores the result of a message, and keeps the message from being delivered again meanwhile.
async fn store_with_progress(app: &App, message: &Message) -> Result<(), ApiError> {
    let mut stored = std::pin::pin!(store_result(app, message));
    loop {
        match tokio::time::timeout(PROGRESS_EVERY, &mut stored).await {
            Ok(stored) => return stored,
            Err(_) => {
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    debug!("cannot report progress for the submission on {}: {error}", message.subject);
                }
            }
        }
    }
}

/// Stores the job of a message, or its refusal, and answers its sender.
async fn store_result(app: &App, message: &Message) -> Result<(), ApiError> {
    let reply_to = header(message, answer::REPLY_TO);
    let outcome = match parse(message) {
        Ok(inbox_message) => submit(app, &inbox_message, &message.payload)
            .await
            .map_err(|problem| (Some(inbox_message.namespace), problem)),
        Err(problem) => Err((None, problem)),
    };
    match outcome {
        Ok(submitted) => {
            answer::send(&app.bus.client, reply_to, &submitted).await;
            Ok(())
        }
        // The submission is valid: it stays in the inbox until the grid can store it.
        Err((_, problem)) if matches!(problem.kind, Kind::Unavailable | Kind::Full | Kind::Internal) => Err(problem),
        Err((namespace, problem)) => {
            let sequence = message.info().map_or(0, |info| info.stream_sequence);
            let published = match relay::undeliverable(message.headers.as_ref()) {
                Some(_) => relay::published(&app.bus.js, INBOX, sequence).await,
                None => None,
            };
            let body = published.as_deref().unwrap_or(&message.payload);
            let refused = Refused::new(&message.subject, sequence, &problem, body);
            answer::record(&app.bus.js, namespace.as_ref(), &refused).await?;
            answer::send(&app.bus.client, reply_to, &problem).await;
            Ok(())
        }
    }
}

/// Reads the subject and the headers of a message.
fn parse(message: &Message) -> Result<InboxMessage, ApiError> {
    if let Some(reason) = relay::undeliverable(message.headers.as_ref()) {
        return Err(ApiError::malformed(format!(
            "the message could not be delivered as it was published: {reason}"
        )));
    }
    let (namespace, queue) = subjects::parse_submit(&message.subject).ok_or_else(|| {
        ApiError::malformed(format!(
            "the subject `{}` does not have the form rgrid.submit.<namespace>.<queue>, both of 1 to 64 letters, digits, `_` and `-`",
            message.subject
        ))
    })?;
    let namespace = extract::namespace(namespace.as_str())?;
    let derived_key = match header(message, async_nats::header::NATS_MESSAGE_ID.as_ref()) {
        Some(id) if !id.is_empty() => format!("msg:{id}"),
        Some(_) | None => {
            let info = message
                .info()
                .map_err(|error| ApiError::new(Kind::Unavailable, format!("a message without JetStream metadata: {error}")))?;
            // The time distinguishes this inbox from one that was created again and counts from 1.
            format!(
                "inbox:{}:{}:{}",
                info.stream,
                info.stream_sequence,
                info.published.unix_timestamp_nanos()
            )
        }
    };
    Ok(InboxMessage {
        namespace,
        queue,
        derived_key,
    })
}

async fn submit(app: &App, message: &InboxMessage, body: &[u8]) -> Result<Submitted, ApiError> {
    let mut submission = submission::parse(body)?;
    if let Some(queue) = submission.queue.replace(message.queue.to_string())
        && queue != message.queue.as_str()
    {
        let detail = format!(
            "the subject names queue `{}`, and the body names queue `{}`; leave `queue` out of the body",
            message.queue,
            queue.escape_debug()
        );
        return Err(Refusal(detail).into());
    }
    if submission.id.is_some() {
        let detail =
            "`id` is only allowed over HTTP; leave it out, and use the header `Nats-Msg-Id` or a `key` to make the submission idempotent";
        return Err(Refusal(detail.to_owned()).into());
    }
    app.resolve(&mut submission)?;
    let accepted = submission.accept()?;
    let _room = admit(&app.admission, 1, body.len() as u64).await?;
    let inline = store_inline(&app.files, &accepted.to_store).await?;
    if let Some(missing) = check_inputs(&app.files, [&accepted.spec], &inline).await?.first_of(&accepted.spec) {
        return Err(missing);
    }
    check_references(app, &message.namespace, &accepted.spec).await?;
    let namespace = message.namespace.clone();
    let job = if accepted.spec.key.is_some() {
        NewJob::new(namespace, None, accepted.spec)
    } else {
        NewJob::with_derived_key(namespace, accepted.spec, &message.derived_key)
    };
    job.submit(app).await
}
