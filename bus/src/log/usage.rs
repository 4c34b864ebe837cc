//! What the log and the streams beside it take, how the log grows, and the bound that an operator gives it.

use async_nats::jetstream;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    EVENTS,
    room::{Addition, Fill},
    setup::{Error, request},
};

/// The smallest bound, in bytes: with less, the part that is kept for what ends jobs would hold a few hundred events.
pub const LEAST_BOUND: u64 = 16 << 20;
/// There is no message there, nor behind it (`JSNoMessageFoundErr`).
const NO_MESSAGE: u64 = 10_037;

/// What a stream takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How full it is.
    pub fill: Fill,
    /// How many events, or messages, it holds.
    pub events: u64,
    /// The sequence of the first of them.
    pub first: u64,
    /// The sequence of the last one; 0 where there was none ever.
    pub last: u64,
    /// When the first was stored; nothing where it holds none.
    pub first_at: Option<DateTime<Utc>>,
    /// When the last was.
    pub last_at: Option<DateTime<Utc>>,
}

impl Usage {
    /// The smallest bound that it may have: what it holds, and the part above it that new jobs must leave alone.
    #[must_use]
    pub fn least_bound(&self) -> u64 {
        // As a limit is worked out: of whole hundredths.
        let hundredth = self.fill.used.div_ceil(Addition::Jobs.hundredths());
        (hundredth * 100).max(LEAST_BOUND)
    }
}

/// Asks the server what the log takes.
///
/// # Errors
/// If it does not answer, or has no such stream.
pub async fn usage(js: &jetstream::Context) -> Result<Usage, Error> {
    of(js, EVENTS).await
}

/// Asks the server what a stream takes.
///
/// # Errors
/// If it does not answer, or has no such stream.
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

/// How many of its events were stored after a moment. Events are stored in the order of time, so that a few of them tell.
///
/// # Errors
/// If the server does not answer.
pub async fn events_after(js: &jetstream::Context, usage: &Usage, moment: DateTime<Utc>) -> Result<u64, Error> {
    if usage.events == 0 || usage.last_at.is_some_and(|last| last <= moment) {
        return Ok(0);
    }
    // Every event before `low` is not after the moment, and every one from `high` on is.
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

/// The first event at a sequence or behind it, and when it was stored.
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

/// Gives the log another bound, in bytes; everything else of it stays. It is an operator's word: every start of rgrid accepts it.
///
/// # Errors
/// If the server does not answer, or refuses: above all for want of room on its disk.
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
    fn the_least_bound_has_room_for_what_is_there_and_for_what_ends_jobs() {
        assert_eq!(holding(0).least_bound(), LEAST_BOUND);
        for used in [1 << 24, 12_345_678_901, 1 << 34] {
            let max = holding(used).least_bound();
            assert!(Fill { used, max }.has_room(Addition::Jobs), "{used}");
            assert!(!Fill { used, max: max - 200 }.has_room(Addition::Jobs), "{used}");
        }
    }
}
