//! Presigned URLs: clients upload to and download from an S3 store without passing the files through the API.
//!
//! A URL for an upload is bound to the content's length and hash, if the server checks them. What it checks is tried out when the API
//! starts. For a server that checks nothing, no URLs are made: a client could store other bytes under a hash.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bus::ids::{Digest, SessionId};
use model::SignedUpload;
use reqwest::{Client, Method, StatusCode};
use store::{
    Files,
    presign::{Binding, PUT_MAX, Presigner, Signed},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::error::chain;

/// How long a URL is valid.
const LIFE: Duration = Duration::from_secs(3600);
/// How long a request to the store may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause after a failed request.
const PAUSE: Duration = Duration::from_secs(5);
/// The test contents: the server must refuse the wrong bytes, which have the same length.
const RIGHT: &[u8] = b"the bytes that were announced.";
const WRONG: &[u8] = b"other bytes of the same length";

/// Makes URLs for clients. Makes none until the server's checks are known, and none for other kinds of stores.
#[derive(Debug, Clone, Default)]
pub(crate) struct Direct {
    presigner: Option<Presigner>,
    binding: Arc<OnceLock<Option<Binding>>>,
}

impl Direct {
    pub(crate) fn new(files: &Files) -> Self {
        Self {
            presigner: files.presigner().cloned(),
            binding: Arc::default(),
        }
    }

    /// The request with which a client stores a content itself; `None` where it must upload through the API.
    pub(crate) async fn upload(&self, digest: &Digest, size: u64) -> Option<SignedUpload> {
        let binding = (*self.binding.get()?)?;
        let presigner = self.presigner.as_ref().filter(|_| size <= PUT_MAX)?;
        match presigner.put(binding, digest, size, LIFE).await {
            Ok(Signed { url, headers, expires_at }) => Some(SignedUpload {
                url,
                headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                expires_at,
            }),
            Err(error) => {
                debug!("no URL for {digest}: {}", chain(&error));
                None
            }
        }
    }

    /// The URL at which a client reads a content itself.
    pub(crate) async fn download(&self, digest: &Digest) -> Option<String> {
        // Known only once the store has been reached.
        (*self.binding.get()?)?;
        let signed = self.presigner.as_ref()?.get(digest, LIFE).await;
        signed.ok().map(|signed| signed.url.into())
    }

    /// Finds out what the server checks, retrying until it answers, or until `stop`.
    pub(crate) async fn learn(self, files: Files, stop: CancellationToken) {
        let Some(presigner) = &self.presigner else { return };
        let mut warned = false;
        loop {
            match stop.run_until_cancelled(find(&presigner.for_services(), &files)).await {
                None => return,
                Some(Ok(binding)) => {
                    match binding {
                        Some(binding) => info!(
                            "clients upload to and download from {} directly ({binding:?} is checked)",
                            presigner.host()
                        ),
                        None => info!(
                            "the store at {} does not check uploads by signed URLs: all files pass through the API",
                            presigner.host()
                        ),
                    }
                    // Set only here.
                    let _set_before = self.binding.set(binding);
                    return;
                }
                Some(Err(why)) if !std::mem::replace(&mut warned, true) => {
                    warn!("cannot test signed URLs at the store, so files pass through the API: {why}; trying again");
                }
                Some(Err(_)) => {}
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }
}

/// The first binding with which the server accepts the right bytes and refuses the wrong ones.
async fn find(presigner: &Presigner, files: &Files) -> Result<Option<Binding>, String> {
    // If a provider is installed already, it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(PATIENCE).no_proxy().build();
    let client = client.map_err(|error| chain(&error))?;
    let name = format!("probe/{}", SessionId::new());
    let mut found = None;
    for binding in [Binding::Checksum, Binding::Payload] {
        let wrong = put(&client, presigner, binding, &name, WRONG).await?;
        let right = put(&client, presigner, binding, &name, RIGHT).await?;
        if wrong.is_client_error() && right.is_success() {
            found = Some(binding);
            break;
        }
        debug!("{binding:?}: the answer to wrong bytes was {wrong}, to the right ones {right}");
        if wrong.is_server_error() || right.is_server_error() {
            return Err(format!("the store answered {wrong} and {right}"));
        }
    }
    files.discard(&name).await.map_err(|error| chain(&error))?;
    Ok(found)
}

async fn put(client: &Client, presigner: &Presigner, binding: Binding, name: &str, body: &'static [u8]) -> Result<StatusCode, String> {
    let (at, announced) = (name.into(), Digest::of(RIGHT));
    let signed = presigner.put_at(binding, &at, &announced, RIGHT.len() as u64, LIFE).await;
    let signed = signed.map_err(|error| chain(&error))?;
    let mut request = client.request(Method::PUT, signed.url);
    for (name, value) in signed.headers {
        request = request.header(name, value);
    }
    let answer = request.body(body).send().await.map_err(|error| chain(&error))?;
    Ok(answer.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_bytes_are_as_long_as_the_right_ones() {
        assert!(RIGHT.len() == WRONG.len() && RIGHT != WRONG);
    }
}
