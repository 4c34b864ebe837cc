//! `GET /v1/log`, `POST /v1/log/bound`: the size of the log, its growth and its bound.

use axum::{Json, extract::State};
use bus::log::{
    EVENTS, HEARTBEATS, LOGS,
    room::Addition,
    setup,
    usage::{self, Usage},
};
use chrono::{TimeDelta, Utc};
use model::{EventLogView, Growth, Kind, NewBound, Takes, WindowView};
use tracing::info;

use crate::{
    app::{App, Shared},
    error::{ApiError, chain},
    http::extract::{Query, WholeBody, json},
};

/// The largest bound, in bytes: the server counts in signed numbers.
const BOUND_MAX: u64 = i64::MAX as u64;

/// The streams that keep only recent messages, and what they hold.
const WINDOWS: [(&str, &str); 2] = [(HEARTBEATS, "heartbeats"), (LOGS, "output")];

/// `GET /v1/log`
pub(crate) async fn show(State(app): State<Shared>, query: Query) -> Result<Json<EventLogView>, ApiError> {
    query.none()?;
    Ok(Json(view(&app).await?))
}

/// `POST /v1/log/bound`, with `{"bytes":…}`: answers with the log after the change.
pub(crate) async fn set_bound(State(app): State<Shared>, query: Query, WholeBody(body): WholeBody) -> Result<Json<EventLogView>, ApiError> {
    query.none()?;
    let NewBound { bytes } = json("the bound", &body)?;
    let usage = usage::usage(&app.bus.js).await?;
    check(&usage, bytes)?;
    if bytes != usage.fill.max {
        usage::set_bound(&app.bus.js, bytes)
            .await
            .map_err(|error| bound_refused(bytes, error))?;
        info!("changed the bound of the log {EVENTS} to {bytes} bytes, from {}", usage.fill.max);
        // New jobs are admitted at once, and not only after the next regular look.
        app.admission
            .look()
            .await
            .map_err(|error| ApiError::unavailable("cannot read the size of the log", &error))?;
    }
    Ok(Json(view(&app).await?))
}

fn check(usage: &Usage, bytes: u64) -> Result<(), ApiError> {
    let least = usage.least_bound();
    if bytes < least {
        let detail = format!(
            "the log {EVENTS} holds {} bytes, and a bound of {bytes} would leave no room for new jobs and for the ends of running jobs; set \
             it to at least {least} bytes (a tenth of the bound is reserved for running jobs, and {} is the minimum)",
            usage.fill.used,
            usage::LEAST_BOUND
        );
        return Err(ApiError::new(Kind::Refused, detail));
    }
    if bytes > BOUND_MAX {
        let detail = format!("a bound of {bytes} bytes is more than nats-server supports; set it to at most {BOUND_MAX}");
        return Err(ApiError::new(Kind::Refused, detail));
    }
    Ok(())
}

fn bound_refused(bytes: u64, error: setup::Error) -> ApiError {
    match error {
        setup::Error::Refused { reason, .. } => {
            let detail = format!(
                "nats-server refuses a bound of {bytes} bytes for the log {EVENTS}: {reason}; set a smaller one, or make room: the sum of the \
                 bounds of all its streams must fit on its disk, and below its max_file_store"
            );
            ApiError::new(Kind::Refused, detail)
        }
        other => other.into(),
    }
}

impl From<setup::Error> for ApiError {
    fn from(error: setup::Error) -> Self {
        match &error {
            setup::Error::Refused { .. } => Self::new(Kind::Conflict, chain(&error)),
            _ => Self::unavailable("cannot read the state of the log", &error),
        }
    }
}

async fn view(app: &App) -> Result<EventLogView, ApiError> {
    let (js, now) = (&app.bus.js, Utc::now());
    let usage = usage::usage(js).await?;
    let mut growths = [None; 2];
    for (growth, span) in growths.iter_mut().zip([TimeDelta::hours(1), TimeDelta::days(1)]) {
        if let Some(first_at) = usage.first_at {
            let since = first_at.max(now - span);
            // If the log is younger than the span, its first event counts as well.
            let events = match first_at {
                first_at if first_at >= since => usage.events,
                _ => usage::events_after(js, &usage, since).await?,
            };
            *growth = Some(growth_of(&usage, events, now - since));
        }
    }
    let mut view = look(&usage, growths);
    for (stream, keeps) in WINDOWS {
        let usage = match usage::of(js, stream).await {
            Ok(usage) => usage,
            // This stream is optional.
            Err(setup::Error::Refused { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        view.windows.push(WindowView {
            stream: stream.to_owned(),
            keeps: keeps.to_owned(),
            bytes: usage.fill.used,
            bound: (usage.fill.max > 0).then_some(usage.fill.max),
            first_at: usage.first_at,
        });
    }
    Ok(view)
}

fn look(usage: &Usage, [hour, day]: [Option<Growth>; 2]) -> EventLogView {
    let fill = usage.fill;
    let bounded = fill.max > 0;
    EventLogView {
        stream: EVENTS.to_owned(),
        bytes: fill.used,
        bound: bounded.then_some(fill.max),
        least_bound: usage.least_bound(),
        events: usage.events,
        first_sequence: usage.first,
        last_sequence: usage.last,
        first_at: usage.first_at,
        last_at: usage.last_at,
        hour,
        day,
        no_jobs_above: bounded.then(|| fill.limit(Addition::Jobs)),
        no_attempts_above: bounded.then(|| fill.limit(Addition::Attempts)),
        takes: match () {
            () if fill.has_room(Addition::Jobs) => Takes::Everything,
            () if fill.has_room(Addition::Attempts) => Takes::Attempts,
            () if fill.used < fill.max => Takes::Ends,
            () => Takes::Nothing,
        },
        windows: Vec::new(),
    }
}

fn growth_of(usage: &Usage, events: u64, span: TimeDelta) -> Growth {
    let span_ms = u64::try_from(span.num_milliseconds()).unwrap_or(0).max(1);
    // Products of bytes and numbers of events do not fit into 64 bits.
    let part = |of: u64, by: u64, whole: u64| u64::try_from(u128::from(of) * u128::from(by) / u128::from(whole.max(1))).unwrap_or(u64::MAX);
    let bytes = part(usage.fill.used, events, usage.events);
    let reaches = |limit: u64| {
        let left = limit.saturating_sub(usage.fill.used);
        (usage.fill.max > 0 && bytes > 0).then(|| part(span_ms, left, bytes))
    };
    Growth {
        span_ms,
        events,
        bytes,
        full_in_ms: reaches(usage.fill.max),
        no_jobs_in_ms: reaches(usage.fill.limit(Addition::Jobs)),
    }
}

#[cfg(test)]
mod tests {
    use bus::log::room::Fill;
    use chrono::DateTime;

    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;

    fn usage(used: u64, max: u64) -> Usage {
        Usage {
            fill: Fill { used, max },
            events: 1_000,
            first: 1,
            last: 1_000,
            first_at: Some(DateTime::UNIX_EPOCH),
            last_at: Some(DateTime::UNIX_EPOCH),
        }
    }

    #[test]
    fn a_pace_tells_when_the_log_is_full_and_when_it_takes_no_new_jobs() {
        // A tenth of the events came in the last day, and so a tenth of the bytes.
        let growth = growth_of(&usage(4 << 30, 8 << 30), 100, TimeDelta::days(1));
        assert_eq!((growth.span_ms, growth.bytes), (DAY_MS, (4 << 30) / 10));
        let days = |ms: Option<u64>| ms.map(|ms| (ms + DAY_MS / 2) / DAY_MS);
        assert_eq!((days(growth.full_in_ms), days(growth.no_jobs_in_ms)), (Some(10), Some(8)));
    }

    #[test]
    fn a_log_that_does_not_grow_or_has_no_bound_is_never_full() {
        assert_eq!(growth_of(&usage(1 << 30, 2 << 30), 0, TimeDelta::days(1)).full_in_ms, None);
        assert_eq!(growth_of(&usage(1 << 30, 0), 100, TimeDelta::days(1)).full_in_ms, None);
        let full = growth_of(&usage(95, 100), 100, TimeDelta::days(1));
        assert_eq!(full.no_jobs_in_ms, Some(0), "it is already");
    }

    #[test]
    fn what_it_takes_follows_how_full_it_is() {
        let takes = [900, 901, 951, 1_000].map(|used| look(&usage(used, 1_000), [None; 2]).takes);
        assert_eq!(takes, [Takes::Everything, Takes::Attempts, Takes::Ends, Takes::Nothing]);
        let unbounded = look(&usage(1 << 40, 0), [None; 2]);
        assert_eq!((unbounded.takes, unbounded.no_jobs_above), (Takes::Everything, None));
    }

    #[test]
    fn a_bound_below_what_is_used_and_kept_is_refused() {
        let problem = check(&usage(1 << 30, 2 << 30), 1 << 30).expect_err("too small");
        assert!(
            problem.kind == Kind::Refused && problem.detail.contains("at least"),
            "{}",
            problem.detail
        );
        assert!(check(&usage(1 << 30, 2 << 30), 2 << 30).is_ok());
        assert!(check(&usage(1 << 30, 2 << 30), u64::MAX).is_err());
    }
}
