//! Parses requests. Whatever cannot be parsed is answered with a problem document.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, StatusCode, request::Parts},
};
use bus::ids::{JobId, Namespace};
use model::Kind;
use serde::{Deserialize, de::DeserializeOwned};

use crate::error::ApiError;

/// The largest JSON body, in bytes: 10,000 jobs of 6 KB.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;
/// The namespace that subjects use for the grid itself.
const RESERVED: &str = "sys";

/// A whole body, of at most [`MAX_BODY_BYTES`].
pub(crate) struct WholeBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let detail = format!(
                    "the body is larger than {MAX_BODY_BYTES} bytes; submit fewer jobs in one request, and upload files separately"
                );
                ApiError::new(Kind::TooLarge, detail)
            } else {
                ApiError::malformed(format!("the body is incomplete: {rejection}"))
            }
        })
    }
}

/// The parts of a path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| ApiError::malformed(format!("the path cannot be parsed: {}", rejection.body_text())))
    }
}

/// The parameters behind the `?`, in their order, each name and value decoded.
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .map_err(|rejection| ApiError::malformed(format!("the parameters cannot be parsed: {}", rejection.body_text())))
    }
}

impl Query {
    /// Passes each parameter to `take`, which returns whether it knows the parameter.
    pub(crate) fn each(self, mut take: impl FnMut(&str, String) -> Result<bool, ApiError>) -> Result<(), ApiError> {
        for (name, value) in self.0 {
            if !take(&name, value)? {
                return Err(ApiError::malformed(format!("unknown parameter `{}`", name.escape_debug())));
            }
        }
        Ok(())
    }

    /// Allows only `min_sequence`, the sequence that the tables must have reached; 0 by default.
    pub(crate) fn min_sequence_only(self) -> Result<u64, ApiError> {
        let mut min_sequence = 0;
        self.each(|name, value| {
            if name == "min_sequence" {
                min_sequence = parameter(name, &value)?;
            }
            Ok(name == "min_sequence")
        })?;
        Ok(min_sequence)
    }

    /// Allows only `namespace`.
    pub(crate) fn namespace_only(self) -> Result<Namespace, ApiError> {
        let mut namespace = bus::ids::default_token();
        self.each(|name, value| {
            if name == "namespace" {
                namespace = self::namespace(&value)?;
            }
            Ok(name == "namespace")
        })?;
        Ok(namespace)
    }

    /// Allows no parameters.
    pub(crate) fn none(self) -> Result<(), ApiError> {
        self.each(|_, _| Ok(false))
    }
}

/// Parses a namespace that jobs can be in.
pub(crate) fn namespace(text: &str) -> Result<Namespace, ApiError> {
    let namespace: Namespace = parameter("namespace", text)?;
    if namespace.as_str() == RESERVED {
        return Err(ApiError::malformed(
            "the namespace `sys` is reserved for the grid; choose another one",
        ));
    }
    Ok(namespace)
}

/// Parses the value of a parameter.
pub(crate) fn parameter<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|error| ApiError::malformed(format!("the parameter `{name}` is `{}`: {error}", text.escape_debug())))
}

/// Parses `true` or `false`.
pub(crate) fn flag(name: &str, text: &str) -> Result<bool, ApiError> {
    match text {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::malformed(format!(
            "the parameter `{name}` is `{}`; it must be true or false",
            text.escape_debug()
        ))),
    }
}

/// Parses a job's id in a path.
pub(crate) fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(error.to_string()))
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    headers
        .get(name)
        .map(|value| {
            value
                .to_str()
                .map_err(|_| ApiError::malformed(format!("the header `{name}` is not plain text")))
        })
        .transpose()
}

/// Parses JSON; an empty body is the default.
pub(crate) fn json_or_nothing<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        Ok(T::default())
    } else {
        json("the request", body)
    }
}

/// Parses JSON. An error names its line, column and field.
pub(crate) fn json<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<T, ApiError> {
    // Without field names first: tracking them costs a third more, and only errors need them.
    serde_json::from_slice(body).map_err(|plain| {
        let field = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(body))
            .err()
            .map(|error| error.path().to_string())
            .filter(|path| path != ".");
        ApiError::malformed(match field {
            Some(field) => format!("{what} cannot be parsed: `{field}`: {plain}"),
            None => format!("{what} cannot be parsed: {plain}"),
        })
    })
}
