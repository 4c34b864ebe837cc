//! `GET /v1/jobs/{id}/logs`: the output of a job, live and from the start, as SSE or as plain bytes.
//!
//! [`source`] reads an attempt's frames, from the stream while it runs and from the store after it has ended;
//! [`sse`] and [`plain`] render them.

mod cursor;
mod frames;
mod plain;
mod source;
mod sse;
mod tail;

use axum::{
    extract::State,
    http::{HeaderMap, header::ACCEPT},
    response::Response,
};
use bus::{ids::Attempt, output::frame::Stream};

pub(crate) use self::tail::Tails;
use self::{cursor::Cursor, source::Source};
use crate::{
    app::Shared,
    error::ApiError,
    http::{
        extract::{Path, Query, flag, header, job_id, parameter},
        sse::respond,
        stream_task::spawn_stream_task,
    },
    jobs::watch::Watch,
};

/// Which part of a log the client wants.
#[derive(Debug, Default)]
struct LogQuery {
    /// Only this attempt; otherwise the last one and the attempts after it.
    attempt: Option<Attempt>,
    /// Start with this attempt instead of the last one.
    from: Option<Attempt>,
    follow: bool,
    /// Only this stream.
    only: Option<Stream>,
}

/// `GET /v1/jobs/{id}/logs?attempt=N&from=N&follow=true&stream=stdout|stderr`
pub(crate) async fn logs(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = job_id(&id)?;
    let wanted = parse(query)?;
    let events = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/event-stream")));
    let cursor = match header(&headers, "last-event-id")? {
        Some(text) if events => Cursor::parse(text)?,
        _ => Cursor::default(),
    };
    let watch = Watch::open(&app, id).await?;
    check(&watch, &wanted)?;
    let source = Source {
        app: app.clone(),
        watch,
        attempt: wanted.attempt,
        from: wanted.from,
        follow: wanted.follow,
        // Plain bytes hold one attempt: the client could not tell where the next one begins.
        all: events && wanted.attempt.is_none(),
    };
    Ok(if events {
        let from = cursor.clone();
        let items = spawn_stream_task(&app, move |items| Box::pin(source.run(from, items)));
        respond(sse::render(items, cursor, wanted.only))
    } else {
        let items = spawn_stream_task(&app, move |items| Box::pin(source.run(cursor, items)));
        plain::respond(items, wanted.only)
    })
}

fn parse(query: Query) -> Result<LogQuery, ApiError> {
    let mut wanted = LogQuery::default();
    query.each(|name, value| {
        match name {
            "attempt" => match parameter(name, &value)? {
                0 => return Err(ApiError::malformed("attempts are numbered from 1")),
                number => wanted.attempt = Some(Attempt(number)),
            },
            "from" => match parameter(name, &value)? {
                0 => return Err(ApiError::malformed("attempts are numbered from 1")),
                number => wanted.from = Some(Attempt(number)),
            },
            "follow" => wanted.follow = flag(name, &value)?,
            "stream" => {
                wanted.only = Some(match value.as_str() {
                    "stdout" => Stream::Stdout,
                    "stderr" => Stream::Stderr,
                    _ => return Err(ApiError::malformed("the parameter `stream` must be `stdout` or `stderr`")),
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(wanted)
}

/// Checks that the attempt exists, or that the client waits for it.
fn check(watch: &Watch, wanted: &LogQuery) -> Result<(), ApiError> {
    let job = watch.job();
    let Some(number) = wanted.attempt else { return Ok(()) };
    let made = job.attempts.iter().any(|attempt| attempt.number == number);
    if made || (wanted.follow && !job.state().is_end()) {
        return Ok(());
    }
    let last = job.attempts.len();
    Err(ApiError::not_found(format!(
        "job {} has no attempt {number}; it has had {last} so far",
        job.id
    )))
}
