//! The API key of the grid.

use bus::ids::Digest;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// The SHA-256 of the API key: the compared values have the same length, and the key itself is not kept in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(Digest);

impl Key {
    pub(crate) fn new(key: &str) -> Self {
        Self(Digest::of(key.as_bytes()))
    }

    /// An HMAC-SHA256, keyed with the SHA-256 of the key.
    pub(crate) fn hmac(self) -> Hmac<Sha256> {
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..Digest::BYTES].copy_from_slice(self.0.as_bytes());
        Hmac::new(&block)
    }

    /// Whether `given` is this key. The comparison takes the same time for every wrong key.
    pub(crate) fn matches(self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(Digest::of(given.as_bytes()).as_bytes()).into()
    }
}
