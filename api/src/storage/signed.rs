//! The objects that storage passes save for the next pass. Deletion depends on them, so one is used only if it was signed with the grid's
//! key, for this purpose, and written by this version of the program.

use std::sync::LazyLock;

use bus::ids::Digest;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use object_store::ObjectStoreExt as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;
use store::Files;

use crate::key::Key;

/// The largest object that is kept, in bytes: of some 15 million jobs.
const MAX_BYTES: u64 = 1 << 30;
/// Identifies the version of the program: its sources that decide what is read from an event or a manifest, and how it is written. Another
/// version may read more from the same ones. The list is longer than necessary.
static PROGRAM: LazyLock<Digest> = LazyLock::new(|| {
    let sources = [
        include_str!("checkpoint.rs"),
        include_str!("fold.rs"),
        include_str!("fold/saved.rs"),
        include_str!("fold/standing.rs"),
        include_str!("fold/terms.rs"),
        include_str!("lists.rs"),
        include_str!("manifests.rs"),
        include_str!("reading.rs"),
        include_str!("signed.rs"),
        include_str!("../../../bus/src/envelope.rs"),
        include_str!("../../../bus/src/ids.rs"),
        include_str!("../../../bus/src/grid/image.rs"),
        include_str!("../../../bus/src/output/manifest.rs"),
        include_str!("../../../bus/src/batch/event.rs"),
        include_str!("../../../bus/src/job/mod.rs"),
        include_str!("../../../bus/src/job/event.rs"),
        include_str!("../../../bus/src/job/evolve.rs"),
        include_str!("../../../bus/src/spec/policy.rs"),
        include_str!("../../../bus/src/grid/runtimes.rs"),
        include_str!("../../../bus/src/spec/mod.rs"),
        include_str!("../../../bus/src/log/read.rs"),
        include_str!("../../../bus/src/subjects.rs"),
        include_str!("../../../bus/src/worker/mod.rs"),
    ];
    Digest::of(sources.concat().as_bytes())
});

/// The first line of an object. The second is its signature, and what it holds follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head<H> {
    program: Digest,
    #[serde(flatten)]
    content: H,
}

/// A head without fields.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Nothing {}

/// Why an object is not used, or cannot be saved.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is none")]
    None,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it is not signed with this grid's key: the key was changed, or another program wrote it")]
    Unsigned,
    #[error("another version of rgrid wrote it")]
    Program,
    #[error("it is too large ({0} bytes)")]
    TooLarge(u64),
    #[error(transparent)]
    Files(#[from] store::Error),
    #[error("the store does not answer")]
    Store(#[source] object_store::Error),
}

/// An object that storage passes save.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) files: &'a Files,
    pub(super) key: Key,
    /// Its name in the store. It is signed too, so that one object cannot replace another.
    pub(super) name: &'static str,
}

impl Signed<'_> {
    /// Loads the object: its head and its body.
    pub(super) async fn load<H: DeserializeOwned>(&self) -> Result<(H, Bytes), Error> {
        let found = match self.files.object_store().get(&self.name.into()).await {
            Ok(found) if found.meta.size > MAX_BYTES => return Err(Error::TooLarge(found.meta.size)),
            Ok(found) => found.bytes().await.map_err(Error::Store)?,
            Err(object_store::Error::NotFound { .. }) => return Err(Error::None),
            Err(error) => return Err(Error::Store(error)),
        };
        verify(&found, self.name, self.key)
    }

    /// Saves the object, replacing the last one.
    pub(super) async fn save<H: Serialize + Sync>(&self, content: &H, body: Vec<u8>) -> Result<(), Error> {
        let parts = sign(content, body, self.name, self.key)?;
        let size = parts.iter().map(|part| part.len() as u64).sum();
        if size > MAX_BYTES {
            return Err(Error::TooLarge(size));
        }
        let (store, name) = (self.files.object_store(), self.name.into());
        store.put(&name, parts.into_iter().collect()).await.map(drop).map_err(Error::Store)
    }
}

/// Verifies an object, and returns its head and its body. Nothing of it is parsed before its signature is verified.
fn verify<H: DeserializeOwned>(bytes: &Bytes, name: &str, key: Key) -> Result<(H, Bytes), Error> {
    let cut = |from: usize| {
        let end = memchr::memchr(b'\n', &bytes[from..]).ok_or_else(|| Error::Damaged("it ends in its head".to_owned()))?;
        Ok::<_, Error>((bytes.slice(from..from + end), from + end + 1))
    };
    let (head, next) = cut(0)?;
    let (signature, next) = cut(next)?;
    let body = bytes.slice(next..);
    let signature = hex::decode(&signature).map_err(|_| Error::Unsigned)?;
    let mac = signing(&head, &body, name, key);
    mac.verify_slice(&signature).map_err(|_| Error::Unsigned)?;
    let unread = |error: serde_json::Error| Error::Damaged(error.to_string());
    // The version first: the head of another version may have other fields.
    let maker: Head<Nothing> = serde_json::from_slice(&head).map_err(unread)?;
    if maker.program != *PROGRAM {
        return Err(Error::Program);
    }
    let head: Head<H> = serde_json::from_slice(&head).map_err(unread)?;
    Ok((head.content, body))
}

/// Signs an object: head with signature, and body.
fn sign<H: Serialize>(content: &H, body: Vec<u8>, name: &str, key: Key) -> Result<[Bytes; 2], Error> {
    let program = *PROGRAM;
    let head = serde_json::to_vec(&Head { program, content }).map_err(|error| Error::Damaged(error.to_string()))?;
    let signature = hex::encode(signing(&head, &body, name, key).finalize().into_bytes());
    let head = [&head, &b"\n"[..], signature.as_bytes(), b"\n"].concat();
    Ok([head.into(), body.into()])
}

/// The signature: HMAC-SHA256 with the grid's key. It covers the purpose, so that nothing else that is signed with the key can be used.
fn signing(head: &[u8], body: &[u8], name: &str, key: Key) -> Hmac<Sha256> {
    let mut mac = key.hmac();
    for part in [b"rgrid ", name.as_bytes(), b"\n", head, b"\n", body] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests;
