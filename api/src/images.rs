//! `/v1/images`: the catalogue of images that the grid keeps itself. It is read from the log and needs no tables.

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    envelope::{Actor, Envelope},
    image::{Entry, ImageEvent, ImageName, ImagePushed, ImageRemoved},
    stream::{
        append::{self, Append},
        sys,
    },
};

use crate::{
    app::{App, Shared},
    error::{Kind, Problem},
    extract::{Path, Query, Whole, json, json_or_nothing},
    fill::admit,
    view::{ImageView, Images},
};

/// How often another writer may come before.
const TRIES: usize = 10;
/// The longest text that an event takes from outside, in bytes.
const MAX_TEXT: usize = 256;

fn name(text: &str) -> Result<ImageName, Problem> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| Problem::malformed(error.to_string()))
}

/// `GET /v1/images`
pub(crate) async fn list(State(app): State<Shared>, query: Query) -> Result<Json<Images>, Problem> {
    query.none()?;
    let images = sys::images(&app.bus.js).await?;
    Ok(Json(Images {
        images: images.into_iter().map(view).collect(),
    }))
}

/// `GET /v1/images/{name}`
pub(crate) async fn get(State(app): State<Shared>, Path(text): Path<String>, query: Query) -> Result<Json<ImageView>, Problem> {
    query.none()?;
    let name = name(&text)?;
    match sys::image(&app.bus.js, &name).await? {
        Some(entry) => Ok(Json(view(entry))),
        None => Err(absent(&name)),
    }
}

/// `PUT /v1/images/{name}`: 201 for a new one, 200 where it was so already. Its archive must be in the store.
pub(crate) async fn put(
    State(app): State<Shared>,
    Path(text): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<(StatusCode, Json<ImageView>), Problem> {
    query.none()?;
    let name = name(&text)?;
    let pushed: ImagePushed = json("the image", &body)?;
    check(&pushed)?;
    let there = app.files.has(&pushed.archive).await;
    if !there.map_err(|error| Problem::unavailable("the store cannot be asked", &error))? {
        return Err(Problem::new(
            Kind::Refused,
            format!("the archive {} is not in the store; send it to /v1/files first", pushed.archive),
        ));
    }
    let (entry, new) = change(&app, &name, ImageEvent::Pushed(pushed.clone()), |now| {
        // Who says it again changes nothing.
        now.is_none_or(|now| {
            ImagePushed {
                by: None,
                ..now.pushed.clone()
            } != ImagePushed {
                by: None,
                ..pushed.clone()
            }
        })
    })
    .await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    entry.map_or_else(|| Err(absent(&name)), |entry| Ok((status, Json(view(entry)))))
}

/// `DELETE /v1/images/{name}`: its archive stays in the store until nothing refers to it any more.
pub(crate) async fn remove(
    State(app): State<Shared>,
    Path(text): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    query.none()?;
    let name = name(&text)?;
    let removed: Removed = json_or_nothing(&body)?;
    check_text(removed.0.by.as_deref().unwrap_or_default())?;
    match change(&app, &name, ImageEvent::Removed(removed.0), |now| now.is_some()).await? {
        (_, true) => Ok(StatusCode::NO_CONTENT),
        (_, false) => Err(absent(&name)),
    }
}

/// For `json_or_nothing`.
#[derive(Default, serde::Deserialize)]
#[serde(transparent)]
struct Removed(ImageRemoved);

/// Appends an event of a name, if that is wanted by how the name stands; says how it stands then, and whether it was appended.
async fn change(
    app: &App,
    name: &ImageName,
    event: ImageEvent,
    wanted: impl Fn(Option<&Entry>) -> bool,
) -> Result<(Option<Entry>, bool), Problem> {
    let mut conflict = None;
    for _ in 0..TRIES {
        let (last, after) = sys::image_event(&app.bus.js, name).await?;
        let now = last.and_then(Entry::of);
        if !wanted(now.as_ref()) {
            return Ok((now, false));
        }
        let envelope = Envelope::new(Actor::Api, event.clone());
        let append = Append::image(name, after, &envelope);
        let _room = match envelope.event {
            ImageEvent::Pushed(_) => Some(admit(&app.fill, 0, append.weight()).await?),
            ImageEvent::Removed(_) => None,
        };
        match app.log.append(append).await {
            Ok(sequence) => {
                let recorded = bus::image::Recorded {
                    name: name.clone(),
                    sequence,
                    envelope,
                };
                return Ok((Entry::of(recorded), true));
            }
            Err(error @ append::Error::Conflict { .. }) => conflict = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.map_or_else(|| absent(name), Problem::from))
}

fn check(pushed: &ImagePushed) -> Result<(), Problem> {
    for text in [&pushed.id, &pushed.platform, pushed.by.as_ref().unwrap_or(&String::new())] {
        check_text(text)?;
    }
    if pushed.id.is_empty() || !pushed.platform.contains('/') {
        return Err(Problem::malformed(
            "`id` is Docker's own id of the image (`sha256:…`), and `platform` what it runs on (`linux/amd64`); give both",
        ));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), Problem> {
    if text.len() <= MAX_TEXT && !text.contains(char::is_control) {
        return Ok(());
    }
    let detail = format!(
        "the texts of an image may have {MAX_TEXT} bytes, in one line; shorten `{}`",
        text.escape_debug()
    );
    Err(Problem::malformed(detail))
}

fn absent(name: &ImageName) -> Problem {
    Problem::not_found(format!(
        "the grid keeps no image {name}; `rgrid image list` shows those it keeps, and `rgrid image push {name}` adds it"
    ))
}

fn view(Entry { name, pushed, at }: Entry) -> ImageView {
    ImageView { name, pushed, at }
}
