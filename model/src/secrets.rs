//! Secrets, without their values.

use bus::ids::Token;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The public key that secrets must be sealed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// The key ([`bus::grid::secrets::PublicKey`]).
    pub key: String,
}

/// The secrets of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// By name.
    pub secrets: Vec<SecretView>,
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// Its name.
    pub name: Token,
    /// When it was set.
    pub set_at: DateTime<Utc>,
    /// Who set it, according to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<String>,
}

/// The body of a request that sets a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// Its value, sealed ([`bus::grid::secrets::seal`]).
    pub sealed: String,
    /// Who sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}
