//! Answers with a stored content or a range of it, in constant memory.

use std::{io, ops::Range};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bus::ids::Digest;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use model::Kind;
use store::{Error, Files, compression};

use crate::error::ApiError;

/// How much of a range is read in one request to the store, in bytes.
const STEP: u64 = 4 << 20;

/// The part of a content that a request wants.
#[derive(Debug, PartialEq, Eq)]
enum RequestedRange {
    WholeBody,
    Part(Range<u64>),
    /// A range outside of the content.
    Outside,
}

/// The content of `digest`, as the request's headers ask for it.
pub(crate) async fn serve(files: &Files, digest: Digest, request: &HeaderMap, name: Option<&str>) -> Result<Response, ApiError> {
    let etag = format!("\"{digest}\"");
    let matches = |name: HeaderName| {
        let tags = request.get(name).and_then(|value| value.to_str().ok());
        tags.map(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"))
    };
    if matches(header::IF_NONE_MATCH) == Some(true) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let (size, content) = files.get_stream(&digest).await.map_err(|error| read_problem(&error))?;
    let range = request.get(header::RANGE).and_then(|value| value.to_str().ok());
    let requested = match range {
        Some(range) if matches(header::IF_RANGE) != Some(false) => parse(range, size),
        Some(_) | None => RequestedRange::WholeBody,
    };
    let mut response = match requested {
        RequestedRange::WholeBody if range.is_none() && size >= compression::MIN_BYTES && accepts_zstd(request) => {
            whole(size, content).await?
        }
        RequestedRange::WholeBody => respond(StatusCode::OK, size, Body::from_stream(content)),
        RequestedRange::Part(range) => {
            drop(content);
            let length = range.end - range.start;
            let place = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let mut response = respond(
                StatusCode::PARTIAL_CONTENT,
                length,
                Body::from_stream(part(files.clone(), digest, range)),
            );
            set(response.headers_mut(), header::CONTENT_RANGE, &place);
            response
        }
        RequestedRange::Outside => {
            let mut response =
                ApiError::new(Kind::Range, format!("the content has {size} bytes, and the range is outside of it")).into_response();
            set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    let headers = response.headers_mut();
    set(headers, header::ETAG, &etag);
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    if let Some(name) = name {
        // The same name may stand for another content later.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        set(headers, header::CONTENT_DISPOSITION, &disposition(name));
    }
    Ok(response)
}

/// Whether the client accepts zstd, with a weight that is not 0 (RFC 9110, 12.5.3).
fn accepts_zstd(request: &HeaderMap) -> bool {
    let lists = request.get_all(header::ACCEPT_ENCODING);
    let lists = lists.into_iter().filter_map(|value| value.to_str().ok());
    let is_it = |coding: &str| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        name.trim() == compression::ZSTD && weight != Some(0.0)
    };
    lists.flat_map(|list| list.split(',')).any(is_it)
}

/// A whole content, compressed if its beginning compresses well.
async fn whole(size: u64, content: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Result<Response, ApiError> {
    let mut content = Box::pin(content);
    let first = content.try_next().await.map_err(|error| read_problem(&error))?.unwrap_or_default();
    let is_compressed = compression::pays(&first);
    let all = stream::once(async { Ok(first) }).chain(content);
    let mut response = if is_compressed {
        let mut response = respond(
            StatusCode::OK,
            size,
            Body::from_stream(compression::encode(all.map_err(io::Error::other))),
        );
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(compression::ZSTD));
        headers.insert(compression::DECODED_LENGTH, HeaderValue::from(size));
        response
    } else {
        respond(StatusCode::OK, size, Body::from_stream(all))
    };
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

fn respond(status: StatusCode, length: u64, body: Body) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Browsers must not treat a job's output as a page of the API.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A range, read in steps.
fn part(files: Files, digest: Digest, range: Range<u64>) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::try_unfold(range, move |range| {
        let files = files.clone();
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let next = range.end.min(range.start + STEP);
            let bytes = files.get_range(&digest, range.start..next).await?;
            Ok(Some((bytes, next..range.end)))
        }
    })
    .into_stream()
}

/// Reads `bytes=a-b`, `bytes=a-` or `bytes=-n`. Anything else, several ranges too, asks for the whole (RFC 9110, 14.2).
fn parse(text: &str, size: u64) -> RequestedRange {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return RequestedRange::WholeBody;
    };
    let (first, last) = (first.trim(), last.trim());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return RequestedRange::WholeBody;
    }
    // A number too large for 64 bits lies behind every end.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    let range = match (first, last) {
        ("", last) => size.saturating_sub(number(last))..size,
        (first, "") => number(first)..size,
        (first, last) if number(first) > number(last) => return RequestedRange::WholeBody,
        (first, last) => number(first)..number(last).saturating_add(1).min(size),
    };
    if range.is_empty() {
        RequestedRange::Outside
    } else {
        RequestedRange::Part(range)
    }
}

/// The header that names a download: in plain ASCII for old programs, and exactly for the others (RFC 6266).
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || " ._-()".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let mut exact = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            exact.push(char::from(byte));
        } else {
            exact.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

/// The problem of a content that cannot be read.
pub(crate) fn read_problem(error: &Error) -> ApiError {
    match error {
        Error::Missing { digest } => ApiError::not_found(format!("content {digest} is not in the store")),
        Error::Corrupt { .. } => {
            tracing::error!("{error}");
            ApiError::new(Kind::Internal, error.to_string())
        }
        other => ApiError::unavailable("cannot read from the store", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (text, asked) in [
            ("bytes=0-9", RequestedRange::Part(0..10)),
            ("bytes=90-", RequestedRange::Part(90..100)),
            ("bytes=-10", RequestedRange::Part(90..100)),
            ("bytes=-1000", RequestedRange::Part(0..100)),
            ("bytes=99-1000", RequestedRange::Part(99..100)),
            ("bytes=100-", RequestedRange::Outside),
            ("bytes=-0", RequestedRange::Outside),
            ("bytes=99999999999999999999-", RequestedRange::Outside),
            ("bytes=5-2", RequestedRange::WholeBody),
            ("bytes=0-1,5-6", RequestedRange::WholeBody),
            ("lines=1-2", RequestedRange::WholeBody),
            ("bytes=-", RequestedRange::WholeBody),
            ("bytes=+1-2", RequestedRange::WholeBody),
        ] {
            assert_eq!(parse(text, 100), asked, "{text}");
        }
    }

    #[test]
    fn a_downloads_name_cannot_break_out_of_its_header() {
        assert_eq!(
            disposition("a/b\"\r\nX: ü.csv"),
            "attachment; filename=\"b___X_ _.csv\"; filename*=UTF-8''b%22%0D%0AX%3A%20%C3%BC.csv"
        );
    }
}
