//! The store of sealed secrets: a stream that holds the last value of each. Secrets are not events: a removed secret is gone.

use async_nats::jetstream::{
    self,
    stream::{LastRawMessageErrorKind, Stream},
};
use futures::TryStreamExt as _;

use super::SECRETS;
use crate::{
    grid::secrets::Sealed,
    ids::{Namespace, Token},
    subjects,
};

/// A request about secrets failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct Error {
    what: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error {
        what,
        source: Box::new(source),
    }
}

async fn stream(js: &jetstream::Context) -> Result<Stream, Error> {
    js.get_stream(SECRETS).await.map_err(failed("reach the stream of secrets"))
}

/// Stores a secret, and replaces the one with the same name.
///
/// # Errors
/// If the server does not store it.
pub async fn put(js: &jetstream::Context, namespace: &Namespace, name: &Token, sealed: &Sealed) -> Result<(), Error> {
    let json = serde_json::to_vec(sealed).map_err(failed("write a secret"))?;
    let publishing = js.publish(subjects::secret(namespace, Some(name)), json.into()).await;
    publishing
        .map_err(failed("store a secret"))?
        .await
        .map_err(failed("store a secret"))?;
    Ok(())
}

/// A namespace's secret with this name; `None` if there is none. It is read from the stream's leader, so a secret that was set is found.
///
/// # Errors
/// If the server does not answer.
pub async fn get(js: &jetstream::Context, namespace: &Namespace, name: &Token) -> Result<Option<Sealed>, Error> {
    let stream = stream(js).await?;
    match stream
        .get_last_raw_message_by_subject(&subjects::secret(namespace, Some(name)))
        .await
    {
        Ok(message) => serde_json::from_slice(&message.payload).map(Some).map_err(failed("read a secret")),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failed("read a secret")(error)),
    }
}

/// The names of a namespace's secrets, sorted.
///
/// # Errors
/// If the server does not answer.
pub async fn names(js: &jetstream::Context, namespace: &Namespace) -> Result<Vec<Token>, Error> {
    let stream = stream(js).await?;
    let subjects = stream.info_with_subjects(subjects::secret(namespace, None)).await;
    let subjects = subjects.map_err(failed("list secrets"))?;
    let names = subjects.try_filter_map(|(subject, _)| std::future::ready(Ok(subjects::parse_secret(&subject))));
    let mut names: Vec<Token> = names.try_collect().await.map_err(failed("list secrets"))?;
    names.sort_unstable();
    Ok(names)
}

/// Removes a secret, and returns whether it existed.
///
/// # Errors
/// If the server does not answer.
pub async fn remove(js: &jetstream::Context, namespace: &Namespace, name: &Token) -> Result<bool, Error> {
    let purge = stream(js).await?.purge().filter(subjects::secret(namespace, Some(name))).await;
    Ok(purge.map_err(failed("remove a secret"))?.purged > 0)
}
