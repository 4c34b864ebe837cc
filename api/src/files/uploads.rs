//! Contents over HTTP: which are missing, upload, download, each by its SHA-256.

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
        arrivals::{RESUMABLE_MIN, UploadError, UploadState},
        content,
    },
    http::extract::{Path, Query, WholeBody, flag, json},
};

/// The chunks of a body.
trait Pieces: Stream<Item = io::Result<Bytes>> + Send {}
impl<S: Stream<Item = io::Result<Bytes>> + Send> Pieces for S {}

/// How much of a refused body is read, in bytes.
const DRAIN_MAX: usize = 16 << 20;
/// The most hashes in one request.
const MAX_HASHES: usize = 10_000;

/// `POST /v1/files/missing`
pub(crate) async fn missing(State(app): State<Shared>, query: Query, WholeBody(body): WholeBody) -> Result<Json<Missing>, ApiError> {
    query.none()?;
    let mut request: Hashes = json("the list of hashes", &body)?;
    if request.sha256.len() > MAX_HASHES {
        let detail = format!(
            "{} hashes are too many for one request; send at most {MAX_HASHES}",
            request.sha256.len()
        );
        return Err(ApiError::new(Kind::TooLarge, detail));
    }
    let sizes = sizes(&request)?;
    request.sha256.sort_unstable();
    request.sha256.dedup();
    let missing = app.files.missing(&request.sha256).await;
    let missing = missing.map_err(|error| ApiError::unavailable("cannot reach the store", &error))?;
    let uploads = signed_uploads(&app, &missing, &sizes).await?;
    let (mut begun, mut arriving) = (BTreeMap::new(), Vec::new());
    for digest in &missing {
        match sizes.get(digest).and_then(|size| app.arrivals.state(*digest, *size)) {
            Some(UploadState::Partial(taken)) => drop(begun.insert(*digest, taken)),
            Some(UploadState::Arriving) => arriving.push(*digest),
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

/// The size of each content, if the request gives sizes.
fn sizes(request: &Hashes) -> Result<HashMap<Digest, u64>, ApiError> {
    let (hashes, sizes) = (request.sha256.len(), request.sizes.len());
    if sizes > 0 && sizes != hashes {
        let detail = format!("`sizes` has {sizes} entries, and `sha256` has {hashes}; give one size for each hash, or leave out `sizes`");
        return Err(ApiError::malformed(detail));
    }
    Ok(request.sha256.iter().copied().zip(request.sizes.iter().copied()).collect())
}

/// The presigned uploads of the contents whose sizes are known.
async fn signed_uploads(app: &App, missing: &[Digest], sizes: &HashMap<Digest, u64>) -> Result<BTreeMap<Digest, SignedUpload>, ApiError> {
    let mut uploads = BTreeMap::new();
    if sizes.is_empty() || missing.is_empty() {
        return Ok(uploads);
    }
    // A content that is being deleted is uploaded through the API, which waits until the deletion is done.
    let being_deleted = app.files.being_deleted(missing).await;
    let being_deleted = being_deleted.map_err(|error| ApiError::unavailable("cannot reach the store", &error))?;
    for digest in missing.iter().filter(|digest| !being_deleted.contains(digest)) {
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

/// `PUT /v1/files/{sha256}`: 201 when it was stored, 200 if the store has it.
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
        // A sender that was cut off sends nothing more.
        Err(Refused::Cut) => Err(ApiError::new(
            Kind::Conflict,
            "the upload made no progress, and another request asked for the same file; ask `POST /v1/files/missing` how much has arrived, and send the rest",
        )),
        Err(Refused::Problem(problem)) => {
            // Many clients see an answer before the end of their body as a broken connection.
            drain(&mut body, DRAIN_MAX).await;
            Err(problem)
        }
    }
}

/// Why a body was not stored.
enum Refused {
    /// The problem to answer with.
    Problem(ApiError),
    /// Its sender was cut off.
    Cut,
}

impl From<ApiError> for Refused {
    fn from(problem: ApiError) -> Self {
        Self::Problem(problem)
    }
}

/// Stores the body, reading no more of it than needed.
async fn store(app: &App, sha256: Digest, headers: &HeaderMap, body: &mut (impl Pieces + Unpin)) -> Result<StatusCode, Refused> {
    let (length, is_compressed) = length(headers)?;
    let taken = offset(headers)?;
    let size = taken.saturating_add(length);
    if size > app.max_upload_bytes {
        let detail = format!(
            "the file has {size} bytes, and this grid accepts files of at most {} bytes",
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
    let stored = if size < RESUMABLE_MIN {
        store_all(incoming, content).await.map_err(UploadError::Store)
    } else {
        app.arrivals.receive(&app.tasks, (sha256, size), incoming, content).await
    };
    let error = match stored {
        Ok(()) => return Ok(StatusCode::CREATED),
        Err(UploadError::Cut) => return Err(Refused::Cut),
        Err(error) => error,
    };
    let kept = if size < RESUMABLE_MIN {
        "nothing was stored"
    } else {
        "what arrived can be resumed"
    };
    let problem = match error {
        // The beginning may have been sent by another client.
        UploadError::Store(error @ Error::Mismatch { .. }) if taken > 0 => ApiError::new(
            Kind::Conflict,
            format!(
                "{error}, together with the {taken} bytes that had arrived before; nothing was stored, send the file from its beginning"
            ),
        ),
        UploadError::Store(error @ Error::Mismatch { .. }) => ApiError::new(
            Kind::Refused,
            format!("{error}; nothing was stored, send the bytes that the hash was computed from"),
        ),
        UploadError::Store(error @ Error::Input(_)) => ApiError::malformed(format!("{}; {kept}", chain(&error))),
        UploadError::Store(error) if error.is_transient() => ApiError::unavailable("cannot store the file", &error),
        error => {
            let detail = format!("cannot store the file: {}", chain(&error));
            tracing::error!("{detail}");
            ApiError::new(Kind::Internal, detail)
        }
    };
    Err(problem.into())
}

/// Begins an upload, or resumes one of which `taken` bytes have arrived; `None` if the store has the content.
async fn begin(app: &App, sha256: Digest, size: u64, taken: u64) -> Result<Option<Incoming>, ApiError> {
    if taken > 0
        && let Some(incoming) = app.arrivals.resume(sha256, size, taken)
    {
        return Ok(Some(incoming));
    }
    let begun = app.files.begin(sha256, Some(size)).await;
    match begun.map_err(|error| ApiError::unavailable("cannot reach the store", &error))? {
        Some(_) if taken > 0 => Err(ApiError::new(
            Kind::Conflict,
            format!(
                "no upload of {sha256} ({size} bytes) can be resumed at byte {taken}; ask POST /v1/files/missing where it can, or send the \
                 file from its beginning, without `Upload-Offset`"
            ),
        )),
        begun => Ok(begun),
    }
}

/// Stores a content that is too small to be resumed.
async fn store_all(mut incoming: Incoming, mut content: impl Pieces + Unpin) -> Result<(), Error> {
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

/// How many bytes of the content arrived before this body.
fn offset(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get(UPLOAD_OFFSET) else { return Ok(0) };
    value.to_str().ok().and_then(|value| value.parse().ok()).ok_or_else(|| {
        ApiError::malformed("the header `Upload-Offset` is not a number of bytes; send the one that `POST /v1/files/missing` returned")
    })
}

/// The length of the content in the body, and whether it is compressed.
fn length(headers: &HeaderMap) -> Result<(u64, bool), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (name, is_compressed) = match text("content-encoding") {
        None | Some("identity") => ("content-length", false),
        Some(compression::ZSTD) => (compression::DECODED_LENGTH, true),
        Some(other) => {
            let detail = format!(
                "the content encoding `{}` is not supported; send the body without one, or as `zstd`",
                other.escape_debug()
            );
            return Err(ApiError::malformed(detail));
        }
    };
    match text(name).and_then(|value| value.parse().ok()) {
        Some(length) => Ok((length, is_compressed)),
        None if is_compressed => Err(ApiError::new(
            Kind::LengthRequired,
            "the header `Rgrid-Content-Length` is missing; set it to the length of the decompressed file",
        )),
        None => Err(ApiError::new(
            Kind::LengthRequired,
            "the header `Content-Length` is missing; set it to the length of the file",
        )),
    }
}

/// Reads and drops the rest of a body, up to `max` bytes.
async fn drain(body: &mut (impl Pieces + Unpin), max: usize) {
    let mut left = max;
    while let Some(Ok(chunk)) = body.next().await {
        let Some(less) = left.checked_sub(chunk.len()) else { return };
        left = less;
    }
}

/// `GET` and `HEAD /v1/files/{sha256}?direct=`: with `direct`, the answer may redirect to the store (307).
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
        if there.map_err(|error| ApiError::unavailable("cannot reach the store", &error))? {
            return Ok(Redirect::temporary(&url).into_response());
        }
    }
    content::serve(&app.files, digest, &headers, None).await
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(error.to_string()))
}
