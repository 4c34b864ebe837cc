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
use bus::ids::Digest;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use model::{Hashes, Kind, Missing, SignedUpload, UPLOAD_OFFSET};
use store::{Error, Incoming, compression};

use crate::{
    app::{App, Shared},
    error::{ApiError, chain},
    files::{
        arrivals::{Begun, Broke, WORTH_KEEPING},
        content,
    },
    http::extract::{Path, Query, Whole, flag, json},
};

/// A body, as it comes.
trait Pieces: Stream<Item = io::Result<Bytes>> + Send {}
impl<S: Stream<Item = io::Result<Bytes>> + Send> Pieces for S {}

/// How much of a body is taken that is refused, in bytes.
const DRAINED: usize = 16 << 20;
/// The most hashes in one question.
const MAX_HASHES: usize = 10_000;

/// `POST /v1/files/missing`
pub(crate) async fn missing(State(app): State<Shared>, query: Query, Whole(body): Whole) -> Result<Json<Missing>, ApiError> {
    query.none()?;
    let mut asked: Hashes = json("the list of hashes", &body)?;
    if asked.sha256.len() > MAX_HASHES {
        let detail = format!(
            "{} hashes are too many for one question; ask for {MAX_HASHES} at a time",
            asked.sha256.len()
        );
        return Err(ApiError::new(Kind::TooLarge, detail));
    }
    let sizes = sizes(&asked)?;
    asked.sha256.sort_unstable();
    asked.sha256.dedup();
    let missing = app.files.missing(&asked.sha256).await;
    let missing = missing.map_err(|error| ApiError::unavailable("the store cannot be asked", &error))?;
    let uploads = uploads(&app, &missing, &sizes).await?;
    let (mut begun, mut arriving) = (BTreeMap::new(), Vec::new());
    for digest in &missing {
        match sizes.get(digest).and_then(|size| app.arrivals.begun(*digest, *size)) {
            Some(Begun::Waits(taken)) => drop(begun.insert(*digest, taken)),
            Some(Begun::Arrives) => arriving.push(*digest),
            None => {}
        }
    }
    Ok(Json(Missing {
        missing,
        uploads,
        begun,
        arriving,
    }))
}

/// The size of each content, where they are told.
fn sizes(asked: &Hashes) -> Result<HashMap<Digest, u64>, ApiError> {
    let (hashes, sizes) = (asked.sha256.len(), asked.sizes.len());
    if sizes > 0 && sizes != hashes {
        let detail = format!("`sizes` has {sizes} entries, and `sha256` {hashes}; give one for each, or leave `sizes` out");
        return Err(ApiError::malformed(detail));
    }
    Ok(asked.sha256.iter().copied().zip(asked.sizes.iter().copied()).collect())
}

/// How those of known sizes can be stored without us.
async fn uploads(app: &App, missing: &[Digest], sizes: &HashMap<Digest, u64>) -> Result<BTreeMap<Digest, SignedUpload>, ApiError> {
    let mut uploads = BTreeMap::new();
    if sizes.is_empty() || missing.is_empty() {
        return Ok(uploads);
    }
    // What is just being removed is put by us, who wait until that is over.
    let going = app.files.going(missing).await;
    let going = going.map_err(|error| ApiError::unavailable("the store cannot be asked", &error))?;
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
) -> Result<StatusCode, ApiError> {
    query.none()?;
    let sha256 = digest(&sha256)?;
    let mut body = body.into_data_stream().map_err(io::Error::other);
    match store(&app, sha256, &headers, &mut body).await {
        Ok(stored) => {
            drain(&mut body, usize::MAX).await;
            Ok(stored)
        }
        // Of who was cut off, nothing more comes.
        Err(Refused::Cut) => Err(ApiError::new(
            Kind::Conflict,
            "nothing came for a while, and somebody asked for the same file; ask how much of it waits, and send the rest",
        )),
        Err(Refused::Said(problem)) => {
            // An answer before its end would reach many a client as a broken connection.
            drain(&mut body, DRAINED).await;
            Err(problem)
        }
    }
}

/// Why a body is not stored.
enum Refused {
    /// With these words.
    Said(ApiError),
    /// Its sender was cut off.
    Cut,
}

impl From<ApiError> for Refused {
    fn from(problem: ApiError) -> Self {
        Self::Said(problem)
    }
}

/// Stores what comes, as far as it must be read for that.
async fn store(app: &App, sha256: Digest, headers: &HeaderMap, body: &mut (impl Pieces + Unpin)) -> Result<StatusCode, Refused> {
    let (length, is_compressed) = length(headers)?;
    let taken = offset(headers)?;
    let size = taken.saturating_add(length);
    if size > app.max_upload_bytes {
        let detail = format!(
            "the file has {size} bytes, and this grid takes files of at most {} bytes",
            app.max_upload_bytes
        );
        return Err(ApiError::new(Kind::TooLarge, detail).into());
    }
    let Some(incoming) = begin(app, sha256, size, taken).await? else {
        return Ok(StatusCode::OK);
    };
    let content = if is_compressed {
        compression::decode(body).boxed()
    } else {
        body.boxed()
    };
    let stored = if size < WORTH_KEEPING {
        all(incoming, content).await.map_err(Broke::Files)
    } else {
        app.arrivals.take(&app.tasks, (sha256, size), incoming, content).await
    };
    let error = match stored {
        Ok(()) => return Ok(StatusCode::CREATED),
        Err(Broke::Cut) => return Err(Refused::Cut),
        Err(error) => error,
    };
    let kept = if size < WORTH_KEEPING {
        "nothing was stored"
    } else {
        "what came waits for the rest"
    };
    let problem = match error {
        // Who sent the rest need not be who sent the beginning.
        Broke::Files(error @ Error::Mismatch { .. }) if taken > 0 => ApiError::new(
            Kind::Conflict,
            format!("{error}, together with the {taken} bytes that had come before; send it from its beginning, nothing was stored"),
        ),
        Broke::Files(error @ Error::Mismatch { .. }) => ApiError::new(
            Kind::Refused,
            format!("{error}; send the bytes that the hash was made of, nothing was stored"),
        ),
        Broke::Files(error @ Error::Input(_)) => ApiError::malformed(format!("{}; {kept}", chain(&error))),
        Broke::Files(error) if error.is_transient() => ApiError::unavailable("the file cannot be stored", &error),
        error => {
            let detail = format!("the file cannot be stored: {}", chain(&error));
            tracing::error!("{detail}");
            ApiError::new(Kind::Internal, detail)
        }
    };
    Err(problem.into())
}

/// Begins a content, or takes up one of which so many bytes came before; nothing if it is there.
async fn begin(app: &App, sha256: Digest, size: u64, taken: u64) -> Result<Option<Incoming>, ApiError> {
    if taken > 0
        && let Some(incoming) = app.arrivals.resume(sha256, size, taken)
    {
        return Ok(Some(incoming));
    }
    let begun = app.files.begin(sha256, Some(size)).await;
    match begun.map_err(|error| ApiError::unavailable("the store cannot be asked", &error))? {
        Some(_) if taken > 0 => Err(ApiError::new(
            Kind::Conflict,
            format!(
                "no {taken} bytes of {sha256} wait here for the rest of its {size}; ask POST /v1/files/missing how many do, \
                 or send it from its beginning, without `Upload-Offset`"
            ),
        )),
        begun => Ok(begun),
    }
}

/// Stores a content that is not worth going on with.
async fn all(mut incoming: Incoming, mut content: impl Pieces + Unpin) -> Result<(), Error> {
    while let Some(piece) = content.next().await {
        match piece {
            Ok(bytes) => incoming.write(bytes).await?,
            Err(error) => {
                incoming.abort().await;
                return Err(Error::Input(error.into()));
            }
        }
    }
    incoming.finish().await
}

/// How many of a content's bytes came before the body.
fn offset(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get(UPLOAD_OFFSET) else { return Ok(0) };
    value.to_str().ok().and_then(|value| value.parse().ok()).ok_or_else(|| {
        ApiError::malformed(
            "the header `Upload-Offset` is no number of bytes; say how many of the file came before, as `POST /v1/files/missing` says",
        )
    })
}

/// How long a content is that is about to come, and whether it comes compressed.
fn length(headers: &HeaderMap) -> Result<(u64, bool), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (name, is_compressed) = match text("content-encoding") {
        None | Some("identity") => ("content-length", false),
        Some(compression::ZSTD) => (compression::DECODED_LENGTH, true),
        Some(other) => {
            let detail = format!(
                "the body is `{}`, which is not understood here; send it as it is, or as `zstd`",
                other.escape_debug()
            );
            return Err(ApiError::malformed(detail));
        }
    };
    match text(name).and_then(|value| value.parse().ok()) {
        Some(length) => Ok((length, is_compressed)),
        None if is_compressed => Err(ApiError::new(
            Kind::LengthRequired,
            "the header `Rgrid-Content-Length` is missing; say how long the file is when it is decompressed",
        )),
        None => Err(ApiError::new(
            Kind::LengthRequired,
            "the header `Content-Length` is missing; say how long the file is",
        )),
    }
}

/// Takes what is left of a body that is not needed, up to so many bytes.
async fn drain(body: &mut (impl Pieces + Unpin), most: usize) {
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
) -> Result<Response, ApiError> {
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
        if there.map_err(|error| ApiError::unavailable("the store cannot be asked", &error))? {
            return Ok(Redirect::temporary(&url).into_response());
        }
    }
    content::serve(&app.files, digest, &headers, None).await
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(error.to_string()))
}
