//! Contents over HTTP: asked for, stored, read, each by its SHA-256.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Redirect, Response},
};
use bus::{files::Error, ids::Digest};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};

use crate::{
    app::{App, Shared},
    compression, content,
    error::{Kind, Problem, chain},
    extract::{Path, Query, Whole, flag, json},
    view::{Hashes, Missing, Upload},
};

/// A body, as it comes.
trait Incoming: Stream<Item = io::Result<Bytes>> + Send {}
impl<S: Stream<Item = io::Result<Bytes>> + Send> Incoming for S {}

/// How much of a body is taken that is refused, in bytes.
const DRAINED: usize = 16 << 20;
/// The most hashes in one question.
const MAX_HASHES: usize = 10_000;

/// `POST /v1/files/missing`
pub(crate) async fn missing(State(app): State<Shared>, query: Query, Whole(body): Whole) -> Result<Json<Missing>, Problem> {
    query.none()?;
    let mut asked: Hashes = json("the list of hashes", &body)?;
    if asked.sha256.len() > MAX_HASHES {
        let detail = format!(
            "{} hashes are too many for one question; ask for {MAX_HASHES} at a time",
            asked.sha256.len()
        );
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    let sizes = sizes(&asked)?;
    asked.sha256.sort_unstable();
    asked.sha256.dedup();
    let missing = app.files.missing(&asked.sha256).await;
    let missing = missing.map_err(|error| Problem::unavailable("the store cannot be asked", &error))?;
    let uploads = uploads(&app, &missing, &sizes).await?;
    Ok(Json(Missing { missing, uploads }))
}

/// The size of each content, where they are told.
fn sizes(asked: &Hashes) -> Result<HashMap<Digest, u64>, Problem> {
    let (hashes, sizes) = (asked.sha256.len(), asked.sizes.len());
    if sizes > 0 && sizes != hashes {
        let detail = format!("`sizes` has {sizes} entries, and `sha256` {hashes}; give one for each, or leave `sizes` out");
        return Err(Problem::malformed(detail));
    }
    Ok(asked.sha256.iter().copied().zip(asked.sizes.iter().copied()).collect())
}

/// How those of known sizes can be stored without us.
async fn uploads(app: &App, missing: &[Digest], sizes: &HashMap<Digest, u64>) -> Result<BTreeMap<Digest, Upload>, Problem> {
    let mut uploads = BTreeMap::new();
    if sizes.is_empty() || missing.is_empty() {
        return Ok(uploads);
    }
    // What is just being removed is put by us, who wait until that is over.
    let going = app.files.going(missing).await;
    let going = going.map_err(|error| Problem::unavailable("the store cannot be asked", &error))?;
    for digest in missing.iter().filter(|digest| !going.contains(digest)) {
        let Some(size) = sizes.get(digest).filter(|size| **size <= app.max_upload_bytes) else {
            continue;
        };
        match app.direct.upload(digest, *size).await {
            Some(upload) => drop(uploads.insert(*digest, upload)),
            None => break,
        }
    }
    Ok(uploads)
}

/// `PUT /v1/files/{sha256}`: 201 when it is stored, 200 when it was.
pub(crate) async fn put(
    State(app): State<Shared>,
    Path(sha256): Path<String>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    query.none()?;
    let sha256 = digest(&sha256)?;
    let mut body = body.into_data_stream().map_err(io::Error::other);
    let stored = store(&app, sha256, &headers, &mut body).await;
    // An answer before its end would reach many a client as a broken connection.
    drain(&mut body, if stored.is_ok() { usize::MAX } else { DRAINED }).await;
    stored
}

/// Stores what comes, as far as it must be read for that.
async fn store(app: &App, sha256: Digest, headers: &HeaderMap, body: &mut (impl Incoming + Unpin)) -> Result<StatusCode, Problem> {
    let (length, is_compressed) = length(headers)?;
    if length > app.max_upload_bytes {
        let detail = format!(
            "the file has {length} bytes, and this grid takes files of at most {} bytes",
            app.max_upload_bytes
        );
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    let had = app.files.has(&sha256).await;
    if had.map_err(|error| Problem::unavailable("the store cannot be asked", &error))? {
        return Ok(StatusCode::OK);
    }
    let content = if is_compressed {
        compression::decode(body).boxed()
    } else {
        body.boxed()
    };
    match Box::pin(app.files.put_stream(sha256, Some(length), content)).await {
        Ok(()) => Ok(StatusCode::CREATED),
        Err(error @ Error::Mismatch { .. }) => Err(Problem::new(
            Kind::Refused,
            format!("{error}; send the bytes that the hash was made of, nothing was stored"),
        )),
        Err(error @ Error::Input(_)) => Err(Problem::malformed(format!("{}; nothing was stored", chain(&error)))),
        Err(error) => Err(Problem::unavailable("the file cannot be stored", &error)),
    }
}

/// How long a content is that is about to come, and whether it comes compressed.
fn length(headers: &HeaderMap) -> Result<(u64, bool), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (name, is_compressed) = match text("content-encoding") {
        None | Some("identity") => ("content-length", false),
        Some(compression::ZSTD) => (compression::DECODED_LENGTH, true),
        Some(other) => {
            let detail = format!(
                "the body is `{}`, which is not understood here; send it as it is, or as `zstd`",
                other.escape_debug()
            );
            return Err(Problem::malformed(detail));
        }
    };
    match text(name).and_then(|value| value.parse().ok()) {
        Some(length) => Ok((length, is_compressed)),
        None if is_compressed => Err(Problem::new(
            Kind::LengthRequired,
            "the header `Rgrid-Content-Length` is missing; say how long the file is when it is decompressed",
        )),
        None => Err(Problem::new(
            Kind::LengthRequired,
            "the header `Content-Length` is missing; say how long the file is",
        )),
    }
}

/// Takes what is left of a body that is not needed, up to so many bytes.
async fn drain(body: &mut (impl Incoming + Unpin), most: usize) {
    let mut left = most;
    while let Some(Ok(chunk)) = body.next().await {
        let Some(less) = left.checked_sub(chunk.len()) else { return };
        left = less;
    }
}

/// `GET` and `HEAD /v1/files/{sha256}?direct=`: with `direct`, the answer may lead to the store itself (307).
pub(crate) async fn get(
    State(app): State<Shared>,
    Path(sha256): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut direct = false;
    query.each(|name, value| {
        if name == "direct" {
            direct = flag(name, &value)?;
        }
        Ok(name == "direct")
    })?;
    let digest = digest(&sha256)?;
    if direct && let Some(url) = app.direct.download(&digest).await {
        let there = app.files.has(&digest).await;
        if there.map_err(|error| Problem::unavailable("the store cannot be asked", &error))? {
            return Ok(Redirect::temporary(&url).into_response());
        }
    }
    content::serve(&app.files, digest, &headers, None).await
}

fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| Problem::malformed(error.to_string()))
}
