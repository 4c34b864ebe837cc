//! Secrets: values that only the workers of a grid can read. Sealed by whoever sets them to the grid's public key, with an
//! anonymous box (X25519, XSalsa20-Poly1305: `crypto_box`); what is kept, sent and listed is the sealed box alone.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use crypto_box::aead::OsRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{Namespace, Token},
    spec::Refusal,
};

/// The shortest value, in bytes: a shorter one could not be told apart in what a script prints.
pub const MIN_BYTES: usize = 4;
/// The longest value, in bytes (Linux allows 128 KiB for one variable, with its name).
pub const MAX_BYTES: usize = 64 << 10;
/// The most secrets of one job.
pub const MAX_SECRETS: usize = 100;
/// What a file with the whole key begins with, and one with its public half.
const WHOLE: &str = "rgrid-secrets-key:";
const PUBLIC: &str = "rgrid-secrets-public-key:";

/// Why a secret cannot be sealed or opened, or a key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not what `rgrid secret keygen` writes.
    #[error("this is no key for secrets; make one with `rgrid secret keygen FILE`")]
    NotAKey,
    /// The value cannot be an environment variable's.
    #[error("a secret is text of {MIN_BYTES} to {MAX_BYTES} bytes without a NUL")]
    Value,
    /// Another key's, or damaged.
    #[error("it is sealed to another key, or damaged; set it again")]
    Sealed,
    /// It was moved from where it was set.
    #[error("it was set under another name or in another namespace; set it again")]
    Moved,
}

/// The key that opens what is sealed to its public half.
#[derive(Clone)]
pub struct Key(crypto_box::SecretKey);

/// What secrets are sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(crypto_box::PublicKey);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        Self(crypto_box::SecretKey::generate(&mut OsRng))
    }

    /// What is sealed to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    /// The text of its file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{WHOLE}{}\n", hex::encode(self.0.to_bytes()))
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        bytes_of(text, WHOLE).map(|bytes| Self(crypto_box::SecretKey::from_bytes(bytes)))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    /// Reads a public key, or takes the public half of a whole one.
    fn from_str(text: &str) -> Result<Self, Error> {
        match bytes_of(text, PUBLIC) {
            Ok(bytes) => Ok(Self(crypto_box::PublicKey::from_bytes(bytes))),
            Err(_) => text.parse::<Key>().map(|key| key.public()),
        }
    }
}

fn bytes_of(text: &str, prefix: &str) -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    let digits = text.trim().strip_prefix(prefix).ok_or(Error::NotAKey)?;
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| Error::NotAKey)?;
    Ok(bytes)
}

/// A secret as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// The box, in Base64.
    pub sealed: String,
    /// When it was set.
    pub set_at: DateTime<Utc>,
    /// Who set it, as they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<String>,
}

/// What is in the box: with the value its place, so that nobody who can write but not read makes one secret another.
#[derive(Serialize, Deserialize)]
struct Inside {
    namespace: Namespace,
    name: Token,
    value: String,
}

/// Seals a value, in Base64.
///
/// # Errors
/// If the value cannot be a secret.
pub fn seal(key: &PublicKey, namespace: &Namespace, name: &Token, value: &str) -> Result<String, Error> {
    if !(MIN_BYTES..=MAX_BYTES).contains(&value.len()) || value.contains('\0') {
        return Err(Error::Value);
    }
    let inside = Inside {
        namespace: namespace.clone(),
        name: name.clone(),
        value: value.to_owned(),
    };
    let plain = serde_json::to_vec(&inside).map_err(|_| Error::Value)?;
    let sealed = key.0.seal(&mut OsRng, &plain).map_err(|_| Error::Value)?;
    Ok(STANDARD.encode(sealed))
}

/// Opens what was sealed for this place.
///
/// # Errors
/// If it was not, or not to this key.
pub fn open(key: &Key, namespace: &Namespace, name: &Token, sealed: &str) -> Result<String, Error> {
    let sealed = STANDARD.decode(sealed).map_err(|_| Error::Sealed)?;
    let plain = key.0.unseal(&sealed).map_err(|_| Error::Sealed)?;
    let inside: Inside = serde_json::from_slice(&plain).map_err(|_| Error::Sealed)?;
    if inside.namespace == *namespace && inside.name == *name {
        Ok(inside.value)
    } else {
        Err(Error::Moved)
    }
}

/// The secrets that a submission names, checked.
pub(crate) fn checked(secrets: BTreeMap<String, String>, env: &BTreeMap<String, String>) -> Result<BTreeMap<String, Token>, Refusal> {
    if secrets.len() > MAX_SECRETS {
        return Err(Refusal(format!(
            "{} secrets are too many; a job may have {MAX_SECRETS}",
            secrets.len()
        )));
    }
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let checked = secrets.into_iter().map(|(variable, name)| {
        let shown = variable.escape_debug();
        // A shell hands them on in a container.
        if variable.is_empty() || variable.starts_with(|c: char| c.is_ascii_digit()) || !variable.chars().all(is_letter) {
            return Err(Refusal(format!(
                "a secret cannot become the variable `{shown}`: its name has letters, digits and `_`, and does not begin with a digit"
            )));
        }
        if env.contains_key(&variable) {
            return Err(Refusal(format!(
                "the variable `{shown}` is given both in `env` and in `secrets`; leave one out"
            )));
        }
        match name.parse() {
            Ok(name) => Ok((variable, name)),
            Err(error) => Err(Refusal(format!("the secret {error}"))),
        }
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        text.parse().expect("a token")
    }

    #[test]
    fn only_the_grids_key_opens_a_secret_and_only_in_its_place() {
        let (key, other) = (Key::generate(), Key::generate());
        let (ns, name) = (token("default"), token("TOKEN"));
        let sealed = seal(&key.public(), &ns, &name, "hidden value").expect("sealed");
        assert!(!sealed.contains("hidden"));
        assert_ne!(
            sealed,
            seal(&key.public(), &ns, &name, "hidden value").expect("sealed"),
            "twice the same tells something"
        );
        assert_eq!(open(&key, &ns, &name, &sealed).as_deref(), Ok("hidden value"));
        assert_eq!(open(&other, &ns, &name, &sealed), Err(Error::Sealed));
        assert_eq!(open(&key, &token("other"), &name, &sealed), Err(Error::Moved));
        assert_eq!(open(&key, &ns, &token("OTHER"), &sealed), Err(Error::Moved));
        assert_eq!(open(&key, &ns, &name, "no box"), Err(Error::Sealed));
        for value in ["", "abc", "with\0nul"] {
            assert_eq!(seal(&key.public(), &ns, &name, value), Err(Error::Value));
        }
    }

    #[test]
    fn keys_are_read_from_what_is_written() {
        let key = Key::generate();
        assert_eq!(key.to_text().parse::<Key>().map(|key| key.public()), Ok(key.public()));
        assert_eq!(key.to_text().parse::<PublicKey>(), Ok(key.public()));
        assert_eq!(key.public().to_string().parse::<PublicKey>(), Ok(key.public()));
        assert!(key.public().to_string().parse::<Key>().is_err(), "a public half opens nothing");
        assert!("nonsense".parse::<Key>().is_err());
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    #[test]
    fn what_cannot_be_a_secrets_variable_is_refused() {
        let one = |variable: &str, name: &str| BTreeMap::from([(variable.to_owned(), name.to_owned())]);
        let env = BTreeMap::from([("TAKEN".to_owned(), String::new())]);
        assert!(checked(one("A_1", "a-token"), &env).is_ok());
        for (variable, name, words) in [
            ("1A", "x", "cannot become the variable `1A`"),
            ("A-B", "x", "cannot become"),
            ("A;rm", "x", "cannot become"),
            ("", "x", "cannot become"),
            ("TAKEN", "x", "both in `env` and in `secrets`"),
            ("A", "x.y", "the secret `x.y`"),
        ] {
            let refusal = checked(one(variable, name), &env).expect_err(variable);
            assert!(refusal.0.contains(words), "{refusal}");
        }
    }
}
