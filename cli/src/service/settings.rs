//! What every service is told, and how it is shown without its secrets.

use std::{path::Path, str::FromStr};

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use store::{InvalidUrl, StoreUrl};
use url::Url;

use crate::{failure::usage, output::print_line};

/// What every service is told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Grid")]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct Common {
    /// The NATS servers: nats://user:password@host:4222, separated by commas
    #[arg(
        long,
        value_name = "URLS",
        env = "RGRID_NATS",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    pub(crate) nats: String,
    /// The number of replicas of each stream that is created; existing streams are not changed
    #[arg(long, value_name = "N", env = "RGRID_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) replicas: u8,
    /// Print the effective configuration, without secrets, and exit
    #[arg(long, help_heading = None)]
    pub(crate) print_config: bool,
}

/// Where files are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Grid")]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct Storage {
    /// Where files are stored: nats:// (an object store in NATS), s3://BUCKET?endpoint=URL (S3, MinIO) or file:///DIR
    #[arg(long, value_name = "URL", env = "RGRID_STORE", hide_env_values = true, default_value = "nats://")]
    store: String,
}

impl Storage {
    /// The store, checked.
    ///
    /// # Errors
    /// A usage error if the URL names none.
    pub(crate) fn parsed(&self) -> anyhow::Result<StoreUrl> {
        self.store
            .parse()
            .map_err(|error: InvalidUrl| usage(format!("--store (RGRID_STORE): {error}")))
    }

    /// The URL as it was given, credentials and all.
    pub(crate) fn url(&self) -> String {
        self.store.clone()
    }

    /// The URL without its credentials.
    ///
    /// # Errors
    /// As [`Self::parsed`].
    pub(crate) fn shown(&self) -> anyhow::Result<String> {
        Ok(self.parsed()?.to_string())
    }
}

/// The key of the grid's secrets, or its public half.
///
/// # Errors
/// If the file cannot be read, or is none.
pub(crate) fn secrets_key<K: FromStr<Err = bus::grid::secrets::Error>>(file: Option<&Path>) -> anyhow::Result<Option<K>> {
    let Some(file) = file else { return Ok(None) };
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the key for secrets from {shown}"))?;
    text.parse().map(Some).map_err(|error| usage(format!("{shown}: {error}")))
}

/// Prints a configuration as JSON.
pub(crate) fn print(config: &Value) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(config)?)
}

/// URLs, separated by commas, with `***` for their passwords.
pub(crate) fn redacted(urls: &str) -> String {
    urls.split(',').map(|url| redact(url.trim())).collect::<Vec<_>>().join(",")
}

fn redact(text: &str) -> String {
    let Some(mut url) = Url::parse(text).ok().filter(Url::has_host) else {
        // No URL: nothing says which part of it is the secret.
        return text
            .rsplit_once('@')
            .map_or_else(|| text.to_owned(), |(_, host)| format!("***@{host}"));
    };
    // `nats://token@host` has no password: the name is the secret.
    let has_password = url.password().is_some();
    if has_password && url.set_password(Some("***")).is_err()
        || !has_password && !url.username().is_empty() && url.set_username("***").is_err()
    {
        return "***".to_owned();
    }
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut query = url.query_pairs_mut();
        query.clear();
        for (name, value) in &pairs {
            query.append_pair(name, if is_secret(name) { "***" } else { value });
        }
        drop(query);
    }
    url.to_string()
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", "token", "key"]
        .iter()
        .any(|word| name.to_ascii_lowercase().contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let cases = [
            (
                "nats://me:hidden@a:4222, nats://me:hidden@b:4222",
                "nats://me:***@a:4222,nats://me:***@b:4222",
            ),
            ("nats://hidden@a:4222", "nats://***@a:4222"),
            (
                "postgres://me:hidden@h/db?sslmode=disable",
                "postgres://me:***@h/db?sslmode=disable",
            ),
            ("postgres://h/db?password=hidden", "postgres://h/db?password=***"),
            ("me:hidden@host", "***@host"),
            ("nats://a:4222", "nats://a:4222"),
        ];
        for (text, shown) in cases {
            assert_eq!(redacted(text), shown);
        }
    }
}
