//! Checks for messages that no client can receive.

use bus::{
    log::{UNDELIVERABLE, relay::Undeliverable},
    subjects,
};
use model::Finding;

use super::{PATIENCE, broker::Broker, count};
use crate::app::App;

/// How many such messages were recorded, and which was the last one.
pub(super) async fn look(app: &App, broker: &Broker) -> Option<Finding> {
    let number = broker.stream(UNDELIVERABLE)?.number("/state/messages");
    if number == 0 {
        return None;
    }
    let last = tokio::time::timeout(PATIENCE, last(app)).await.ok().flatten();
    let were = if number == 1 { "is" } else { "are" };
    let which = last.as_ref().map_or_else(String::new, |last| {
        let (sequence, stream) = (last.sequence, last.stream.escape_debug());
        format!(
            "; the last one: sequence {sequence} of {stream}, on {}: {}",
            last.subject.escape_debug(),
            last.reason
        )
    });
    let example = last.as_ref().map_or_else(String::new, |last| {
        format!(" (`nats stream get {} {}`)", last.stream.escape_debug(), last.sequence)
    });
    Some(
        Finding::warning(
            "undeliverable",
            format!(
                "{} cannot be delivered to any client, and {were} skipped{which}",
                count(number, "message")
            ),
            format!(
                "find the program that publishes them{example}, and correct its headers; the grid skips these messages; \
                 afterwards, clear the record: `nats stream purge {UNDELIVERABLE}`"
            ),
        )
        .since(last.map(|last| last.time)),
    )
}

async fn last(app: &App) -> Option<Undeliverable> {
    let stream = app.bus.js.get_stream_no_info(UNDELIVERABLE).await.ok()?;
    let message = stream.direct_get_last_for_subject(subjects::UNDELIVERABLE).await.ok()?;
    serde_json::from_slice(&message.payload).ok()
}
