//! Finding the grid: by address and key, or by the data directory of `rgrid up`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use client::Client;
use reqwest::Url;

use crate::{
    failure::usage,
    output::Terminal,
    project::{Project, Wanted},
    text,
    up::{GridFile, default_data_dir},
};

/// The longest file that holds a key, in bytes.
const KEY_BYTES: u64 = 64 << 10;

/// Which grid a verb speaks to.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Grid")]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct Connect {
    /// The URL of the grid's API, such as http://grid.example:8080 [default: the grid that `rgrid up` started on this machine]
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
    /// Whether files travel compressed where they shrink [default: to another machine]
    #[arg(long, env = "RGRID_COMPRESS", value_name = "BOOL", hide = true)]
    pub(crate) compress: Option<bool>,
}

impl Connect {
    /// The client of the grid that is meant.
    ///
    /// # Errors
    /// If none is named and none is up here, or the key cannot be read.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let (url, key) = self.address()?;
        let client = Client::new(&url, key.as_deref())?.observed_by(Terminal);
        Ok(match self.compress {
            Some(compress) => client.compressing(compress),
            None => client,
        })
    }

    fn address(&self) -> anyhow::Result<(Url, Option<String>)> {
        let (project_url, project_key) = self.project()?;
        // A key goes only where its owner says: the project's address gets the project's key, and no other.
        let key = if project_url.is_some() { project_key } else { self.given_key()? };
        if let Some(url) = self.url.as_ref().or(project_url.as_ref()) {
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

    /// The grid that the project's `rgrid.toml` names, and its key, where the user names none.
    fn project(&self) -> anyhow::Result<(Option<Url>, Option<String>)> {
        if self.url.is_some() || self.data_dir.is_some() {
            return Ok((None, None));
        }
        let project = Project::of_here(Wanted::Grid)?;
        let key = project.key_file.as_deref().map(key_of).transpose()?;
        Ok((project.url, key))
    }

    fn given_key(&self) -> anyhow::Result<Option<String>> {
        match (&self.key, &self.key_file) {
            (Some(key), _) => Ok(Some(key.trim().to_owned())),
            (None, Some(file)) => key_of(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn key_of(file: &Path) -> anyhow::Result<String> {
    let text = text::read(file, KEY_BYTES).with_context(|| {
        format!(
            "cannot read the API's key from {}; check --key-file, RGRID_KEY_FILE, or `key-file` in rgrid.toml",
            file.display()
        )
    })?;
    Ok(text.trim().to_owned())
}
