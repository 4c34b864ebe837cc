//! One submission of the inbox.

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
    jobs::{NewJob, check_alone, check_inputs, store_inline},
};

/// How long taking may take.
const PATIENCE: Duration = Duration::from_secs(25);
/// How often the server is told that a message is still being taken: it delivers one again of which it heard nothing for 5 s, so
/// that those of an intake that died come back soon.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// The pause before a submission that could not be taken is delivered again.
const LATER: Duration = Duration::from_secs(2);

/// What a message says of itself.
struct Letter {
    namespace: Namespace,
    queue: Queue,
    /// What its job is known by, unless its body has a key: the same at every delivery.
    name: String,
}

/// Takes a submission: its job or its refusal is stored, answered, and acknowledged.
///
/// # Errors
/// If it could not be stored now; it will come again.
pub(super) async fn take(app: &App, message: Message) -> Result<(), ApiError> {
    let taken = tokio::time::timeout(PATIENCE, settling(app, &message)).await;
    match taken.unwrap_or_else(|_| Err(ApiError::new(Kind::Unavailable, "it took too long"))) {
        Ok(()) => {
            // An acknowledgement that is lost on the way brings the message once more, to be found taken.
            if let Err(error) = message.double_ack().await {
                debug!(
                    "the submission on {} was taken, and that is not acknowledged: {error}",
                    message.subject
                );
            }
            Ok(())
        }
        Err(problem) => {
            if let Err(error) = message.ack_with(AckKind::Nak(Some(LATER))).await {
                debug!("the submission on {} could not be handed back: {error}", message.subject);
            }
            Err(problem)
        }
    }
}

/// Settles a message, and keeps it from being delivered again meanwhile.
async fn settling(app: &App, message: &Message) -> Result<(), ApiError> {
    let mut settled = std::pin::pin!(settle(app, message));
    loop {
        match tokio::time::timeout(SIGN_OF_LIFE, &mut settled).await {
            Ok(settled) => return settled,
            Err(_) => {
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    debug!("no sign of life for the submission on {}: {error}", message.subject);
                }
            }
        }
    }
}

/// Stores what comes of a message, and answers.
async fn settle(app: &App, message: &Message) -> Result<(), ApiError> {
    let reply_to = header(message, answer::REPLY_TO);
    let outcome = match letter(message) {
        Ok(letter) => submit(app, &letter, &message.payload)
            .await
            .map_err(|problem| (Some(letter.namespace), problem)),
        Err(problem) => Err((None, problem)),
    };
    match outcome {
        Ok(submitted) => {
            answer::send(&app.bus.client, reply_to, &submitted).await;
            Ok(())
        }
        // Nothing is wrong with the submission: it waits in the inbox, also for the log to be made larger.
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

fn letter(message: &Message) -> Result<Letter, ApiError> {
    if let Some(reason) = relay::undeliverable(message.headers.as_ref()) {
        return Err(ApiError::malformed(format!(
            "the message could not be delivered as it was published: {reason}"
        )));
    }
    let (namespace, queue) = subjects::parse_submit(&message.subject).ok_or_else(|| {
        ApiError::malformed(format!(
            "`{}` is not of the form rgrid.submit.<namespace>.<queue>, where both are of 1 to 64 letters, digits, `_` and `-`",
            message.subject
        ))
    })?;
    let namespace = extract::namespace(namespace.as_str())?;
    let name = match header(message, async_nats::header::NATS_MESSAGE_ID.as_ref()) {
        Some(id) if !id.is_empty() => format!("msg:{id}"),
        Some(_) | None => {
            let info = message
                .info()
                .map_err(|error| ApiError::new(Kind::Unavailable, format!("a message without its place: {error}")))?;
            // The time tells this inbox from one that was made anew and counts from 1 again.
            format!(
                "inbox:{}:{}:{}",
                info.stream,
                info.stream_sequence,
                info.published.unix_timestamp_nanos()
            )
        }
    };
    Ok(Letter { namespace, queue, name })
}

async fn submit(app: &App, letter: &Letter, body: &[u8]) -> Result<Submitted, ApiError> {
    let mut submission = submission::parse(body)?;
    if let Some(queue) = submission.queue.replace(letter.queue.to_string())
        && queue != letter.queue.as_str()
    {
        let detail = format!(
            "the subject names queue `{}` and the body `{}`; leave the body's `queue` out",
            letter.queue,
            queue.escape_debug()
        );
        return Err(Refusal(detail).into());
    }
    if submission.id.is_some() {
        let detail =
            "`id` is for submissions over HTTP; here the header `Nats-Msg-Id` or a `key` makes a submission idempotent: leave `id` out";
        return Err(Refusal(detail.to_owned()).into());
    }
    app.resolve(&mut submission)?;
    let accepted = submission.accept()?;
    let _room = admit(&app.fill, 1, body.len() as u64).await?;
    let own = store_inline(&app.files, &accepted.to_store).await?;
    if let Some(missing) = check_inputs(&app.files, [&accepted.spec], &own).await?.first_of(&accepted.spec) {
        return Err(missing);
    }
    check_alone(app, &letter.namespace, &accepted.spec).await?;
    let namespace = letter.namespace.clone();
    let job = if accepted.spec.key.is_some() {
        NewJob::new(namespace, None, accepted.spec)
    } else {
        NewJob::known_as(namespace, accepted.spec, &letter.name)
    };
    job.store(app).await
}
