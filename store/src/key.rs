//! The key of a content in the store, the same in every kind of store.

use bus::ids::Digest;
use object_store::path::Path as Key;

/// `sha256/<first two digits>/<digest>`: a directory store gets 256 directories.
pub(super) fn content_key(digest: &Digest) -> Key {
    let text = digest.to_string();
    Key::from(format!("sha256/{}/{text}", &text[..2]))
}
