//! The size and growth of the log and the other streams, and the log's bound, which an operator sets.

use async_nats::jetstream;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    EVENTS,
    room::{Addition, Fill},
    setup::{Error, request},
};

/// The smallest bound, in bytes. With less, the part that is reserved for events that end jobs would hold only a few hundred events.
pub const LEAST_BOUND: u64 = 16 << 20;
/// The server's error if there is no message at or after a sequence (`JSNoMessageFoundErr`).
const NO_MESSAGE: u64 = 10_037;

/// The size of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How full the stream is.
    pub fill: Fill,
    /// The number of events or messages.
    pub events: u64,
    /// The sequence of the first one.
    pub first: u64,
    /// The sequence of the last one; 0 if there never was one.
    pub last: u64,
    /// When the first one was stored; `None` if the stream is empty.
    pub first_at: Option<DateTime<Utc>>,
    /// When the last one was stored.
    pub last_at: Option<DateTime<Utc>>,
}

impl Usage {
    /// The smallest bound that the log may be given: its size, plus the part that new jobs must leave free.
    #[must_use]
    pub fn least_bound(&self) -> u64 {
        // Calculated like the limit: in whole hundredths.
        let hundredth = self.fill.used.div_ceil(Addition::Jobs.hundredths());
        (hundredth * 100).max(LEAST_BOUND)
    }
}

/// Asks the server for the size of the log.
///
/// # Errors
/// If the server does not answer, or does not have the stream.
pub async fn usage(js: &jetstream::Context) -> Result<Usage, Error> {
    of(js, EVENTS).await
}

/// Asks the server for the size of a stream.
///
/// # Errors
/// If the server does not answer, or does not have the stream.
pub async fn of(js: &jetstream::Context, stream: &str) -> Result<Usage, Error> {
    let info = info(js, stream).await?;
    let number = |path: &str| info.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let events = number("/state/messages");
    let time = |path: &str| {
        let told = info.pointer(path).and_then(Value::as_str).filter(|_| events > 0);
        told.and_then(|told| told.parse().ok())
    };
    Ok(Usage {
        fill: Fill {
            used: number("/state/bytes"),
            max: number("/config/max_bytes"),
        },
        events,
        first: number("/state/first_seq"),
        last: number("/state/last_seq"),
        first_at: time("/state/first_ts"),
        last_at: time("/state/last_ts"),
    })
}

/// The number of events that were stored after a moment. Events are stored in the order of time, so a binary search is enough.
///
/// # Errors
/// If the server does not answer.
pub async fn events_after(js: &jetstream::Context, usage: &Usage, moment: DateTime<Utc>) -> Result<u64, Error> {
    if usage.events == 0 || usage.last_at.is_some_and(|last| last <= moment) {
        return Ok(0);
    }
    // Every event before `low` was stored at or before the moment, every event from `high` on after it.
    let (mut low, mut high) = (usage.first, usage.last);
    while low < high {
        let middle = low.midpoint(high);
        match stored_from(js, middle).await? {
            Some((_, time)) if time > moment => high = middle,
            Some((sequence, _)) => low = sequence + 1,
            None => high = middle,
        }
    }
    Ok(usage.last + 1 - high)
}

/// The first event at or after a sequence, and when it was stored.
async fn stored_from(js: &jetstream::Context, sequence: u64) -> Result<Option<(u64, DateTime<Utc>)>, Error> {
    let answer = request(js, EVENTS, "MSG.GET", &json!({ "seq": sequence, "next_by_subj": ">" })).await?;
    if answer["error"]["err_code"] == NO_MESSAGE {
        return Ok(None);
    }
    let message = &answer["message"];
    let time = message["time"].as_str().and_then(|time| time.parse().ok());
    match (message["seq"].as_u64(), time) {
        (Some(sequence), Some(time)) => Ok(Some((sequence, time))),
        _ => Err(refused(EVENTS, &answer)),
    }
}

/// Changes the log's bound, in bytes. All other settings stay. Every start of rgrid accepts an operator's bound.
///
/// # Errors
/// If the server does not answer, or refuses, usually because its disk has no room.
pub async fn set_bound(js: &jetstream::Context, bytes: u64) -> Result<(), Error> {
    let mut config = info(js, EVENTS).await?["config"].take();
    config["max_bytes"] = json!(bytes);
    let answer = request(js, EVENTS, "UPDATE", &config).await?;
    if answer.get("error").is_some() {
        Err(refused(EVENTS, &answer))
    } else {
        Ok(())
    }
}

async fn info(js: &jetstream::Context, stream: &str) -> Result<Value, Error> {
    let info = request(js, stream, "INFO", &json!({})).await?;
    if info.get("error").is_some() {
        Err(refused(stream, &info))
    } else {
        Ok(info)
    }
}

fn refused(stream: &str, answer: &Value) -> Error {
    let words = answer["error"]["description"].as_str();
    Error::Refused {
        stream: stream.to_owned(),
        reason: words.map_or_else(|| answer["error"].to_string(), ToOwned::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(used: u64) -> Usage {
        Usage {
            fill: Fill { used, max: 0 },
            events: 1,
            first: 1,
            last: 1,
            first_at: None,
            last_at: None,
        }
    }

    #[test]
    fn the_least_bound_has_room_for_the_log_and_for_events_that_end_jobs() {
        assert_eq!(holding(0).least_bound(), LEAST_BOUND);
        for used in [1 << 24, 12_345_678_901, 1 << 34] {
            let max = holding(used).least_bound();
            assert!(Fill { used, max }.has_room(Addition::Jobs), "{used}");
            assert!(!Fill { used, max: max - 200 }.has_room(Addition::Jobs), "{used}");
        }
    }
}
