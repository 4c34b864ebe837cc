//! Finding the grid: by address and key, or by the data directory of `rgrid up`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::Url;

use super::Client;
use crate::{
    failure::usage,
    up::{GridFile, default_data_dir},
};

/// Which grid a verb speaks to.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Grid")]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct Connect {
    /// The grid's API, such as http://grid.example:8080; otherwise the grid that `rgrid up` started on this machine
    #[arg(long, env = "RGRID_URL", value_name = "URL")]
    pub(crate) url: Option<Url>,
    /// The API's key
    #[arg(long, env = "RGRID_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// A file that holds the API's key
    #[arg(long, env = "RGRID_KEY_FILE", value_name = "FILE", conflicts_with = "key")]
    pub(crate) key_file: Option<PathBuf>,
    /// The data directory of the grid that `rgrid up` started
    #[arg(long, env = "RGRID_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Connect {
    /// The client of the grid that is meant.
    ///
    /// # Errors
    /// If none is named and none is up here, or the key cannot be read.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let (url, key) = self.address()?;
        Ok(Client::new(&url, key.as_deref())?)
    }

    fn address(&self) -> anyhow::Result<(Url, Option<String>)> {
        let key = self.given_key()?;
        if let Some(url) = &self.url {
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
                return Err(usage(format!(
                    "`{url}` is not an address of a grid; write --url http://host:port or https://host"
                )));
            }
            return Ok((url.clone(), key));
        }
        let dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => default_data_dir()?,
        };
        if !dir.join("grid.json").exists() {
            anyhow::bail!(
                "there is no grid on this machine (nothing in {}); start one with `rgrid up`, or name another with --url (RGRID_URL) and --key (RGRID_API_KEY)",
                dir.display()
            );
        }
        let grid = GridFile::load(&dir)?;
        Ok((grid.api_url, Some(key.unwrap_or(grid.api_key))))
    }

    fn given_key(&self) -> anyhow::Result<Option<String>> {
        match (&self.key, &self.key_file) {
            (Some(key), _) => Ok(Some(key.trim().to_owned())),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).with_context(|| {
                    format!(
                        "cannot read the API's key from {}; check --key-file or RGRID_KEY_FILE",
                        file.display()
                    )
                })?;
                Ok(Some(text.trim().to_owned()))
            }
            (None, None) => Ok(None),
        }
    }
}
