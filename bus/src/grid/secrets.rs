//! Secrets: values that only the grid's workers can read. A client seals a value to the grid's public key with an anonymous box (X25519,
//! XSalsa20-Poly1305: `crypto_box`). Only the sealed box is stored, sent and listed.

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

/// The shortest value, in bytes. A shorter value could not be recognised in a script's output.
pub const MIN_BYTES: usize = 4;
/// The longest value, in bytes (Linux allows 128 KiB for one variable, with its name).
pub const MAX_BYTES: usize = 64 << 10;
/// The largest number of secrets of a job.
pub const MAX_SECRETS: usize = 100;
/// The prefixes of the files with the private key and with the public key.
const PRIVATE: &str = "rgrid-secrets-key:";
const PUBLIC: &str = "rgrid-secrets-public-key:";

/// Why a secret cannot be sealed or opened, or a key cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not a key as `rgrid secret keygen` writes it.
    #[error("this is not a key for secrets; make one with `rgrid secret keygen FILE`")]
    NotAKey,
    /// The value cannot be the value of an environment variable.
    #[error("a secret is a text of {MIN_BYTES} to {MAX_BYTES} bytes without a NUL")]
    Value,
    /// The secret is sealed to another key, or is damaged.
    #[error("the secret is sealed to another key, or damaged; set it again")]
    Sealed,
    /// The secret was copied from another name or namespace.
    #[error("the secret was set under another name or in another namespace; set it again")]
    Moved,
}

/// The private key, which opens secrets that are sealed to its public key.
#[derive(Clone)]
pub struct Key(crypto_box::SecretKey);

/// The public key, to which secrets are sealed.
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

    /// The public key of this key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    /// The content of the key's file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PRIVATE}{}\n", hex::encode(self.0.to_bytes()))
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        bytes_of(text, PRIVATE).map(|bytes| Self(crypto_box::SecretKey::from_bytes(bytes)))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    /// Reads a public key, or takes the public key of a private key.
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

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// The sealed box, in Base64.
    pub sealed: String,
    /// When the secret was set.
    pub set_at: DateTime<Utc>,
    /// Who set the secret, as given by the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<String>,
}

/// The content of the box. It includes namespace and name, so that a client that can write but not read cannot copy a secret to another
/// name.
#[derive(Serialize, Deserialize)]
struct Inside {
    namespace: Namespace,
    name: Token,
    value: String,
}

/// Seals a value. The result is in Base64.
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

/// Opens a secret that was sealed for this namespace and name.
///
/// # Errors
/// If the secret was sealed for another name, or to another key.
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

/// Checks the secrets that a submission names.
pub(crate) fn checked(secrets: BTreeMap<String, String>, env: &BTreeMap<String, String>) -> Result<BTreeMap<String, Token>, Refusal> {
    if secrets.len() > MAX_SECRETS {
        return Err(Refusal(format!(
            "the job has {} secrets; it may have at most {MAX_SECRETS}",
            secrets.len()
        )));
    }
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let checked = secrets.into_iter().map(|(variable, name)| {
        let shown = variable.escape_debug();
        // In a container, a shell passes the variables on.
        if variable.is_empty() || variable.starts_with(|c: char| c.is_ascii_digit()) || !variable.chars().all(is_letter) {
            return Err(Refusal(format!(
                "a secret cannot become the variable `{shown}`: a name has letters, digits and `_`, and does not begin with a digit"
            )));
        }
        if env.contains_key(&variable) {
            return Err(Refusal(format!(
                "the variable `{shown}` is in both `env` and `secrets`; leave one of them out"
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
    fn only_the_grids_key_opens_a_secret_and_only_under_its_name() {
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
    fn a_written_key_can_be_read() {
        let key = Key::generate();
        assert_eq!(key.to_text().parse::<Key>().map(|key| key.public()), Ok(key.public()));
        assert_eq!(key.to_text().parse::<PublicKey>(), Ok(key.public()));
        assert_eq!(key.public().to_string().parse::<PublicKey>(), Ok(key.public()));
        assert!(key.public().to_string().parse::<Key>().is_err(), "a public key opens nothing");
        assert!("nonsense".parse::<Key>().is_err());
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    #[test]
    fn an_invalid_variable_for_a_secret_is_refused() {
        let one = |variable: &str, name: &str| BTreeMap::from([(variable.to_owned(), name.to_owned())]);
        let env = BTreeMap::from([("TAKEN".to_owned(), String::new())]);
        assert!(checked(one("A_1", "a-token"), &env).is_ok());
        for (variable, name, words) in [
            ("1A", "x", "cannot become the variable `1A`"),
            ("A-B", "x", "cannot become"),
            ("A;rm", "x", "cannot become"),
            ("", "x", "cannot become"),
            ("TAKEN", "x", "in both `env` and `secrets`"),
            ("A", "x.y", "the secret `x.y`"),
        ] {
            let refusal = checked(one(variable, name), &env).expect_err(variable);
            assert!(refusal.0.contains(words), "{refusal}");
        }
    }
}
