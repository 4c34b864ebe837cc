//! Files that go between clients and an S3 store without passing through here: by presigned URLs.
//!
//! A URL that stores a content is bound to its length and its hash, if the server checks them; which of them it checks, and how it
//! is told, is tried when the API starts. A server that checks nothing gets none: anybody with a key could put other bytes under a hash.

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

/// How long a URL may be used.
const LIFE: Duration = Duration::from_secs(3600);
/// How long a question to the store may take, and the pause before it is asked again.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(5);
/// What a server is tried with: other bytes of the same length must be refused.
const RIGHT: &[u8] = b"the bytes that were announced.";
const WRONG: &[u8] = b"other bytes of the same length";

/// What makes URLs for clients. Makes none until it is known how, and none where there is nobody to go to.
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

    /// By what a client stores a content itself; nothing where it is to send it here.
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

    /// By what a client reads a content itself.
    pub(crate) async fn download(&self, digest: &Digest) -> Option<String> {
        // A store that can be tried can be reached.
        (*self.binding.get()?)?;
        let signed = self.presigner.as_ref()?.get(digest, LIFE).await;
        signed.ok().map(|signed| signed.url.into())
    }

    /// Finds out how the server is told what it must check. Until it answers, or `stop`.
    pub(crate) async fn learn(self, files: Files, stop: CancellationToken) {
        let Some(presigner) = &self.presigner else { return };
        let mut told = false;
        loop {
            match stop.run_until_cancelled(find(&presigner.here(), &files)).await {
                None => return,
                Some(Ok(binding)) => {
                    match binding {
                        Some(binding) => info!(
                            "clients send and fetch files at {} themselves ({binding:?} is checked)",
                            presigner.host()
                        ),
                        None => info!(
                            "the store at {} does not check what is put there by a signed URL: all files pass through the API",
                            presigner.host()
                        ),
                    }
                    // It is set here alone.
                    let _set_before = self.binding.set(binding);
                    return;
                }
                Some(Err(why)) if !std::mem::replace(&mut told, true) => {
                    warn!("cannot try signed URLs at the store yet, and files pass through the API: {why}");
                }
                Some(Err(_)) => {}
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }
}

/// The first binding by which the server takes what was announced, and refuses anything else.
async fn find(presigner: &Presigner, files: &Files) -> Result<Option<Binding>, String> {
    // A provider that is installed already is the same one.
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
        debug!("{binding:?}: other bytes were answered {wrong}, the right ones {right}");
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
