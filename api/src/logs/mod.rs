//! `GET /v1/jobs/{id}/logs`: what a job prints, live and from the start, as SSE or as plain bytes.
//!
//! [`source`] reads an attempt's frames, from the stream while it runs and from the store when it has ended;
//! [`sse`] and [`plain`] write them down.

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
        stream_task::produce,
    },
    jobs::watch::Watch,
};

/// What of a log is asked for.
#[derive(Debug, Default)]
struct LogQuery {
    /// Only this attempt; else the last one, and those that follow it.
    attempt: Option<Attempt>,
    /// Not the last attempt, but this one, and those that follow it.
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
    let asked = read(query)?;
    let events = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/event-stream")));
    let cursor = match header(&headers, "last-event-id")? {
        Some(text) if events => Cursor::read(text)?,
        _ => Cursor::default(),
    };
    let watch = Watch::open(&app, id).await?;
    check(&watch, &asked)?;
    let source = Source {
        app: app.clone(),
        watch,
        attempt: asked.attempt,
        from: asked.from,
        follow: asked.follow,
        // One file of bytes holds one attempt: nobody could tell where the next begins.
        all: events && asked.attempt.is_none(),
    };
    Ok(if events {
        let from = cursor.clone();
        let items = produce(&app, move |items| Box::pin(source.run(from, items)));
        respond(sse::render(items, cursor, asked.only))
    } else {
        let items = produce(&app, move |items| Box::pin(source.run(cursor, items)));
        plain::respond(items, asked.only)
    })
}

fn read(query: Query) -> Result<LogQuery, ApiError> {
    let mut asked = LogQuery::default();
    query.each(|name, value| {
        match name {
            "attempt" => match parameter(name, &value)? {
                0 => return Err(ApiError::malformed("attempts are numbered from 1")),
                number => asked.attempt = Some(Attempt(number)),
            },
            "from" => match parameter(name, &value)? {
                0 => return Err(ApiError::malformed("attempts are numbered from 1")),
                number => asked.from = Some(Attempt(number)),
            },
            "follow" => asked.follow = flag(name, &value)?,
            "stream" => {
                asked.only = Some(match value.as_str() {
                    "stdout" => Stream::Stdout,
                    "stderr" => Stream::Stderr,
                    _ => return Err(ApiError::malformed("the parameter `stream` is `stdout` or `stderr`")),
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(asked)
}

/// An attempt that was not made, and that nobody waits for, has no log.
fn check(watch: &Watch, asked: &LogQuery) -> Result<(), ApiError> {
    let job = watch.job();
    let Some(number) = asked.attempt else { return Ok(()) };
    let made = job.attempts.iter().any(|attempt| attempt.number == number);
    if made || (asked.follow && !job.state().is_end()) {
        return Ok(());
    }
    let last = job.attempts.len();
    Err(ApiError::not_found(format!(
        "job {} has no attempt {number}; so far there were {last}",
        job.id
    )))
}
