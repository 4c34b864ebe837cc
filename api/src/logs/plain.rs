//! A log as the bytes that the job wrote: both streams in their order, or one of them.

use std::io;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bus::output::frame::{Frame, Stream as Which};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};

use super::source::Item;

/// The answer with the bytes of a log.
pub(super) fn respond(items: impl Stream<Item = Item> + Send + 'static, only: Option<Which>) -> Response {
    let bytes = items.filter_map(move |item| std::future::ready(bytes(item, only)));
    let mut response = Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The bytes of an item. An error breaks the connection, so that the client does not take an incomplete log for a complete one.
fn bytes(item: Item, only: Option<Which>) -> Option<io::Result<Bytes>> {
    match item {
        Item::Frames(frames) => match Frame::read_all(frames) {
            Ok(frames) => {
                let mut frames = frames
                    .into_iter()
                    .filter(|frame| only.is_none_or(|only| only == frame.stream))
                    .peekable();
                let first = frames.next()?;
                if frames.peek().is_none() {
                    return Some(Ok(first.bytes)).filter(|bytes| bytes.as_ref().is_ok_and(|bytes| !bytes.is_empty()));
                }
                let mut all = BytesMut::from(first.bytes);
                frames.for_each(|frame| all.extend_from_slice(&frame.bytes));
                Some(Ok(all.freeze()))
            }
            Err(error) => Some(Err(io::Error::other(error))),
        },
        Item::Failed(problem) => Some(Err(io::Error::other(problem.0.detail))),
        Item::Attempt(..) | Item::Gap(_) | Item::Waiting(_) | Item::End(_) => None,
    }
}
