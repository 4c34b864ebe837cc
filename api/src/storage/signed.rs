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
/// The program: what it makes of an event or a list, and how it writes that down. Another one may find more in the same ones, so that
/// each reads them once. More is listed here than must be.
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
    says: H,
}

/// What every program's head says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Nothing {}

/// Why an object is not used, or not kept.
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

/// One object of the collector's.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) files: &'a Files,
    pub(super) key: Key,
    /// Its name in the store. It is signed too, so that one cannot stand in the place of another.
    pub(super) name: &'static str,
}

impl Signed<'_> {
    /// What the object says of itself, and what it holds.
    pub(super) async fn load<H: DeserializeOwned>(&self) -> Result<(H, Bytes), Error> {
        let found = match self.files.object_store().get(&self.name.into()).await {
            Ok(found) if found.meta.size > MAX_BYTES => return Err(Error::TooLarge(found.meta.size)),
            Ok(found) => found.bytes().await.map_err(Error::Store)?,
            Err(object_store::Error::NotFound { .. }) => return Err(Error::None),
            Err(error) => return Err(Error::Store(error)),
        };
        opened(&found, self.name, self.key)
    }

    /// Puts an object in the place of the last.
    pub(super) async fn save<H: Serialize + Sync>(&self, says: &H, body: Vec<u8>) -> Result<(), Error> {
        let parts = sealed(says, body, self.name, self.key)?;
        let size = parts.iter().map(|part| part.len() as u64).sum();
        if size > MAX_BYTES {
            return Err(Error::TooLarge(size));
        }
        let (store, name) = (self.files.object_store(), self.name.into());
        store.put(&name, parts.into_iter().collect()).await.map(drop).map_err(Error::Store)
    }
}

/// What an object says of itself, and what it holds; nothing of it is looked at that is not signed.
fn opened<H: DeserializeOwned>(bytes: &Bytes, name: &str, key: Key) -> Result<(H, Bytes), Error> {
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
    // The program first: another one's head may say other things.
    let maker: Head<Nothing> = serde_json::from_slice(&head).map_err(unread)?;
    if maker.program != *PROGRAM {
        return Err(Error::Program);
    }
    let head: Head<H> = serde_json::from_slice(&head).map_err(unread)?;
    Ok((head.says, body))
}

/// Head and signature, and what it holds.
fn sealed<H: Serialize>(says: &H, body: Vec<u8>, name: &str, key: Key) -> Result<[Bytes; 2], Error> {
    let program = *PROGRAM;
    let head = serde_json::to_vec(&Head { program, says }).map_err(|error| Error::Damaged(error.to_string()))?;
    let signature = hex::encode(signing(&head, &body, name, key).finalize().into_bytes());
    let head = [&head, &b"\n"[..], signature.as_bytes(), b"\n"].concat();
    Ok([head.into(), body.into()])
}

/// What signs it: HMAC-SHA256 with the grid's key. It says what for, so that nothing else that is signed with the key can be taken for it.
fn signing(head: &[u8], body: &[u8], name: &str, key: Key) -> Hmac<Sha256> {
    let mut mac = key.hmac();
    for part in [b"rgrid ", name.as_bytes(), b"\n", head, b"\n", body] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests;
