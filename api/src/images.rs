//! `/v1/images`: the images that the grid stores itself. They are read from the log, without Postgres.

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    grid::image::{Command, Entry, ImageName, ImagePushed, ImageRemoved},
    log::{sys, writer::Outcome},
};
use model::{ImageView, Images, Kind};

use crate::{
    app::Shared,
    error::ApiError,
    http::extract::{Path, Query, WholeBody, json, json_or_nothing},
};

/// The longest text of an image, in bytes.
const MAX_TEXT: usize = 256;

fn name(text: &str) -> Result<ImageName, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(error.to_string()))
}

/// `GET /v1/images`
pub(crate) async fn list(State(app): State<Shared>, query: Query) -> Result<Json<Images>, ApiError> {
    query.none()?;
    let images = sys::images(&app.bus.js).await?;
    Ok(Json(Images {
        images: images.into_iter().map(view).collect(),
    }))
}

/// `GET /v1/images/{name}`
pub(crate) async fn get(State(app): State<Shared>, Path(text): Path<String>, query: Query) -> Result<Json<ImageView>, ApiError> {
    query.none()?;
    let name = name(&text)?;
    match sys::image(&app.bus.js, &name).await? {
        Some(entry) => Ok(Json(view(entry))),
        None => Err(absent(&name)),
    }
}

/// `PUT /v1/images/{name}`: 201 for a change, 200 where nothing changes. The archive must be in the store.
pub(crate) async fn put(
    State(app): State<Shared>,
    Path(text): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<ImageView>), ApiError> {
    query.none()?;
    let name = name(&text)?;
    let pushed: ImagePushed = json("the image", &body)?;
    check(&pushed)?;
    let there = app.files.has(&pushed.archive).await;
    if !there.map_err(|error| ApiError::unavailable("cannot reach the store", &error))? {
        return Err(ApiError::new(
            Kind::Refused,
            format!("the archive {} is not in the store; upload it to /v1/files first", pushed.archive),
        ));
    }
    let (entry, status) = match app.writer.write::<Entry>(&name, &Command::Push(pushed)).await? {
        Outcome::Appended(entry, _) => (entry, StatusCode::CREATED),
        // The image is the same already.
        Outcome::Rejected(entry, ..) => (entry, StatusCode::OK),
    };
    entry.map_or_else(|| Err(absent(&name)), |entry| Ok((status, Json(view(entry)))))
}

/// `DELETE /v1/images/{name}`: its archive stays in the store until nothing refers to it.
pub(crate) async fn remove(
    State(app): State<Shared>,
    Path(text): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<StatusCode, ApiError> {
    query.none()?;
    let name = name(&text)?;
    let removed: Removed = json_or_nothing(&body)?;
    check_text(removed.0.by.as_deref().unwrap_or_default())?;
    match app.writer.write::<Entry>(&name, &Command::Remove(removed.0)).await? {
        Outcome::Appended(..) => Ok(StatusCode::NO_CONTENT),
        Outcome::Rejected(..) => Err(absent(&name)),
    }
}

/// For `json_or_nothing`.
#[derive(Default, serde::Deserialize)]
#[serde(transparent)]
struct Removed(ImageRemoved);

fn check(pushed: &ImagePushed) -> Result<(), ApiError> {
    for text in [&pushed.id, &pushed.platform, pushed.by.as_ref().unwrap_or(&String::new())] {
        check_text(text)?;
    }
    if pushed.id.is_empty() || !pushed.platform.contains('/') {
        return Err(ApiError::malformed(
            "`id` must be Docker's id of the image (`sha256:…`), and `platform` its platform (`linux/amd64`)",
        ));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), ApiError> {
    if text.len() <= MAX_TEXT && !text.contains(char::is_control) {
        return Ok(());
    }
    let detail = format!(
        "the texts of an image must be one line of at most {MAX_TEXT} bytes; shorten `{}`",
        text.escape_debug()
    );
    Err(ApiError::malformed(detail))
}

fn absent(name: &ImageName) -> ApiError {
    ApiError::not_found(format!(
        "the grid does not store image {name}; `rgrid image list` shows its images, and `rgrid image push {name}` adds this one"
    ))
}

fn view(Entry { name, pushed, at }: Entry) -> ImageView {
    ImageView { name, pushed, at }
}
