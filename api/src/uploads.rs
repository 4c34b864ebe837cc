//! Contents over HTTP: asked for, stored, read, each by its SHA-256.

use std::io;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bus::{files::Error, ids::Digest};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{
    app::Shared,
    content,
    error::{Kind, Problem, chain},
    extract::{Path, Query, Whole, json},
    view::{Hashes, Missing},
};

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
    asked.sha256.sort_unstable();
    asked.sha256.dedup();
    let missing = app.files.missing(&asked.sha256).await;
    let missing = missing.map_err(|error| Problem::unavailable("the store cannot be asked", &error))?;
    Ok(Json(Missing { missing }))
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
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(length) = length else {
        return Err(Problem::new(
            Kind::LengthRequired,
            "the header `Content-Length` is missing; say how long the file is",
        ));
    };
    if length > app.max_upload_bytes {
        let detail = format!(
            "the file has {length} bytes, and this grid takes files of at most {} bytes",
            app.max_upload_bytes
        );
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    let had = app.files.has(&sha256).await;
    if had.map_err(|error| Problem::unavailable("the store cannot be asked", &error))? {
        drain(body).await;
        return Ok(StatusCode::OK);
    }
    let content = body.into_data_stream().map_err(io::Error::other);
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

/// Takes a body that is not needed. An answer before its end would reach many a client as a broken connection.
async fn drain(body: Body) {
    let mut data = body.into_data_stream();
    while let Some(Ok(_)) = data.next().await {}
}

/// `GET` and `HEAD /v1/files/{sha256}`
pub(crate) async fn get(
    State(app): State<Shared>,
    Path(sha256): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    query.none()?;
    content::serve(&app.files, digest(&sha256)?, &headers, None).await
}

fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| Problem::malformed(error.to_string()))
}
