//! Checks the API key, which every request but `GET /v1/health` must carry.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use model::Kind;

use crate::{app::Shared, error::ApiError, http::connections::Connection, key::Key};

/// Passes requests on that carry the API key.
pub(crate) async fn require(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    match check(app.key, given) {
        Ok(()) => match request
            .extensions()
            .get::<Arc<Connection>>()
            .map_or(Ok(()), |connection| connection.authenticate())
        {
            Ok(()) => next.run(request).await,
            Err(full) => full.into_response(),
        },
        Err(detail) => {
            let mut response = ApiError::new(Kind::Unauthorized, detail).into_response();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

fn check(key: Key, given: Option<&[u8]>) -> Result<(), &'static str> {
    let Some(given) = given else {
        return Err(
            "the request has no API key; send the header `Authorization: Bearer <key>` with the key that the grid was started with",
        );
    };
    let token = std::str::from_utf8(given).ok().and_then(|text| {
        let (scheme, token) = text.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    match token {
        None => Err("the header `Authorization` does not have the form `Bearer <key>`"),
        Some(token) if key.matches(token) => Ok(()),
        Some(_) => Err("wrong API key; send the key that the grid was started with"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_is_accepted() {
        let key = Key::new("s3cret");
        assert!(check(key, Some(b"Bearer s3cret")).is_ok());
        assert!(check(key, Some(b"bearer  s3cret ")).is_ok());
        for wrong in [
            None,
            Some(&b"Bearer s3cre"[..]),
            Some(b"Bearer s3cret2"),
            Some(b"Basic s3cret"),
            Some(b"s3cret"),
            Some(b"\xff"),
        ] {
            assert!(check(key, wrong).is_err(), "{wrong:?}");
        }
    }
}
