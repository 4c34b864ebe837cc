//! Secrets over HTTP: set, list, remove. They arrive sealed to the grid's public key; the API cannot open them.

use std::collections::HashSet;

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    grid::secrets::{self, Sealed},
    ids::{Namespace, Token},
    log,
    spec::{JobSpec, submission::Refusal},
};
use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _};
use model::{Kind, PublicKey, SecretView, Secrets, SetSecret};

use crate::{
    app::{App, Shared},
    error::ApiError,
    http::extract::{Path, Query, WholeBody, json},
};

/// The longest sealed secret, in bytes: the longest value, escaped and in Base64.
const MAX_SEALED: usize = 3 * secrets::MAX_BYTES;
/// The longest `by`, in bytes.
const MAX_BY: usize = 256;
/// Secrets that are looked up at the same time.
const AT_ONCE: usize = 16;

fn unavailable(error: &log::secrets::Error) -> ApiError {
    ApiError::unavailable("cannot reach the secrets", error)
}

fn name(text: &str) -> Result<Token, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(format!("the secret {error}")))
}

/// `GET /v1/secrets/key`: the public key that secrets must be sealed to.
pub(crate) async fn key(State(app): State<Shared>, query: Query) -> Result<Json<PublicKey>, ApiError> {
    query.none()?;
    match &app.secrets_key {
        Some(key) => Ok(Json(PublicKey { key: key.to_string() })),
        None => Err(ApiError::new(
            Kind::NotFound,
            "this grid has no key for secrets; make one with `rgrid secret keygen FILE`, and start the API and the runners with --secrets-key-file FILE",
        )),
    }
}

/// `GET /v1/secrets?namespace=…`: the names, and who set each one when.
pub(crate) async fn list(State(app): State<Shared>, query: Query) -> Result<Json<Secrets>, ApiError> {
    let namespace = query.namespace_only()?;
    let names = log::secrets::names(&app.bus.js, &namespace)
        .await
        .map_err(|error| unavailable(&error))?;
    let get = |name: Token| async {
        let sealed = log::secrets::get(&app.bus.js, &namespace, &name).await?;
        Ok(sealed.map(|Sealed { set_at, set_by, .. }| SecretView { name, set_at, set_by }))
    };
    let secrets = futures::stream::iter(names).map(get).buffered(AT_ONCE);
    let secrets: Vec<SecretView> = secrets
        .try_filter_map(|found| std::future::ready(Ok(found)))
        .try_collect()
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(Json(Secrets { secrets }))
}

/// `PUT /v1/secrets/{name}?namespace=…`: 201 for a new secret, 200 for a new value.
pub(crate) async fn set(
    State(app): State<Shared>,
    Path(text): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<SecretView>), ApiError> {
    let (namespace, name) = (query.namespace_only()?, name(&text)?);
    let SetSecret { sealed, by } = json("the secret", &body)?;
    if sealed.len() > MAX_SEALED || by.as_ref().is_some_and(|by| by.len() > MAX_BY) {
        let detail = format!(
            "a secret's value may have at most {} bytes, and `by` at most {MAX_BY}",
            secrets::MAX_BYTES
        );
        return Err(ApiError::new(Kind::TooLarge, detail));
    }
    let before = log::secrets::get(&app.bus.js, &namespace, &name)
        .await
        .map_err(|error| unavailable(&error))?;
    let sealed = Sealed {
        sealed,
        set_at: Utc::now(),
        set_by: by,
    };
    log::secrets::put(&app.bus.js, &namespace, &name, &sealed)
        .await
        .map_err(|error| unavailable(&error))?;
    let Sealed { set_at, set_by, .. } = sealed;
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(SecretView { name, set_at, set_by })))
}

/// `DELETE /v1/secrets/{name}?namespace=…`
pub(crate) async fn remove(State(app): State<Shared>, Path(text): Path<String>, query: Query) -> Result<StatusCode, ApiError> {
    let (namespace, name) = (query.namespace_only()?, name(&text)?);
    match log::secrets::remove(&app.bus.js, &namespace, &name).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(ApiError::not_found(format!(
            "secret `{name}` does not exist in namespace {namespace}; `rgrid secret list` shows the secrets"
        ))),
        Err(error) => Err(unavailable(&error)),
    }
}

/// Secrets that jobs name, and that the namespace does not have.
#[derive(Debug)]
pub(crate) struct AbsentSecrets {
    namespace: Namespace,
    absent: HashSet<Token>,
}

/// Looks up every secret that these jobs name, each once.
pub(crate) async fn check_secrets<'a>(
    app: &App,
    namespace: &Namespace,
    specs: impl IntoIterator<Item = &'a JobSpec>,
) -> Result<AbsentSecrets, ApiError> {
    let named: HashSet<Token> = specs.into_iter().flat_map(|spec| spec.secrets.values().cloned()).collect();
    let look = |name: Token| async move {
        let found = log::secrets::get(&app.bus.js, namespace, &name).await?;
        Ok(found.is_none().then_some(name))
    };
    let absent = futures::stream::iter(named).map(look).buffer_unordered(AT_ONCE);
    let absent = absent.try_filter_map(|absent| std::future::ready(Ok(absent))).try_collect().await;
    Ok(AbsentSecrets {
        namespace: namespace.clone(),
        absent: absent.map_err(|error| unavailable(&error))?,
    })
}

impl AbsentSecrets {
    /// The problem of a job that names one of them.
    pub(crate) fn first_of(&self, spec: &JobSpec) -> Option<ApiError> {
        let missing = spec.secrets.values().find(|name| self.absent.contains(name))?;
        let refusal = Refusal(format!(
            "secret `{missing}` does not exist in namespace {}; set it with `rgrid secret set {missing}`",
            self.namespace
        ));
        Some(refusal.into())
    }
}
