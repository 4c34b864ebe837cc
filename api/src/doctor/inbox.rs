//! Checks submissions over NATS: those that wait, and those that were refused.

use async_nats::jetstream::{consumer, stream::DirectGetErrorKind};
use bus::{
    log::{INBOX, REFUSED},
    subjects,
};
use chrono::{DateTime, TimeDelta, Utc};
use model::Finding;
use serde::Deserialize;

use super::{PATIENCE, broker::Broker, count};
use crate::app::App;

/// How long a submission may wait in the inbox.
const SLOW: TimeDelta = TimeDelta::seconds(10);
/// How old a refusal may be to be reported.
const RECENT: TimeDelta = TimeDelta::days(1);

pub(super) async fn look(app: &App, broker: &Broker) -> Vec<Finding> {
    let refused = tokio::time::timeout(PATIENCE, refused(app, broker.now())).await;
    waiting(broker).into_iter().chain(refused.ok().flatten()).collect()
}

fn waiting(broker: &Broker) -> Option<Finding> {
    let inbox = broker.stream(INBOX)?;
    let oldest: DateTime<Utc> = inbox.info.as_ref()?["state"]["first_ts"].as_str()?.parse().ok()?;
    let messages = inbox.number("/state/messages");
    (messages > 0 && broker.now() - oldest > SLOW).then(|| {
        let wait = if messages == 1 { "waits" } else { "wait" };
        Finding::warning(
            "inbox",
            format!(
                "{} {wait} in the inbox ({INBOX}) without being processed",
                count(messages, "submission")
            ),
            "read the API's log: submissions wait while the file store does not answer, or the log is full",
        )
        .since(Some(oldest))
    })
}

#[derive(Deserialize)]
struct Refused {
    reason: String,
}

/// How many submissions were refused recently, and why the last one was.
async fn refused(app: &App, now: DateTime<Utc>) -> Option<Finding> {
    let stream = app.bus.js.get_stream_no_info(REFUSED).await.ok()?;
    let last = match stream.direct_get_last_for_subject(subjects::REFUSALS).await {
        Ok(last) => last,
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => return None,
        Err(_) => return None,
    };
    let at = DateTime::from_timestamp(last.time.unix_timestamp(), last.time.nanosecond())?;
    if now - at > RECENT {
        return None;
    }
    let start_time = last.time - std::time::Duration::from_secs(RECENT.num_seconds().unsigned_abs());
    let counting = consumer::pull::Config {
        deliver_policy: consumer::DeliverPolicy::ByStartTime { start_time },
        ack_policy: consumer::AckPolicy::None,
        inactive_threshold: std::time::Duration::from_secs(5),
        memory_storage: true,
        num_replicas: 1,
        ..consumer::pull::Config::default()
    };
    let made = app.bus.js.create_consumer_on_stream(counting, REFUSED).await.ok()?;
    let number = made.cached_info().num_pending;
    let reason = serde_json::from_slice::<Refused>(&last.payload).map_or_else(|_| "unknown".to_owned(), |refused| refused.reason);
    let were = if number == 1 { "was" } else { "were" };
    Some(
        Finding::warning(
            "refused",
            format!(
                "{} {were} refused in the last 24 hours; the reason of the last one: {reason}",
                count(number, "submission")
            ),
            format!("correct the program that submits; `nats stream view {REFUSED}` shows each refusal with its reason"),
        )
        .since(Some(at)),
    )
}
