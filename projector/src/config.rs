//! The configuration of a projector.

use std::fmt;

use sqlx::postgres::PgConnectOptions;
use store::StoreUrl;

use crate::Error;

/// Where the projector reads from, and where it writes to.
#[derive(Clone)]
pub struct Config {
    /// The NATS servers' URLs, separated by commas.
    pub nats: String,
    /// How many servers keep a copy of each stream.
    pub replicas: u8,
    /// The database of the tables: `postgres://user:password@host:port/name`. They are created at the start.
    pub database_url: String,
    /// Where files are stored: `nats://`, `s3://…`, `file://…`.
    pub store: String,
}

/// Without the URLs, which hold passwords.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}

impl Config {
    /// How to connect to the database.
    pub(crate) fn database(&self) -> Result<PgConnectOptions, Error> {
        self.database_url.parse().map_err(Error::DatabaseUrl)
    }

    /// Where the manifests are.
    pub(crate) fn files(&self) -> Result<StoreUrl, Error> {
        Ok(self.store.parse()?)
    }
}
