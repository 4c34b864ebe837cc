//! The grid that is measured: one that is up, or one started for the run.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bus::spec::{ExecutorKind, Resources, submission::Submission};
use client::Client;
use tempfile::TempDir;

use super::args::BenchArgs;
use crate::up::{Embedded, GridFile, default_data_dir};

/// The grid that is measured.
pub(super) struct Grid {
    /// Its API.
    pub(super) client: Client,
    /// Its NATS server, where we know it.
    pub(super) nats: Option<String>,
    own: Option<(Embedded, TempDir)>,
}

impl Grid {
    /// Finds the grid, or starts one.
    ///
    /// # Errors
    /// If there is none, or it does not start.
    pub(super) async fn open(args: &BenchArgs) -> anyhow::Result<Self> {
        if args.embedded {
            let dir = tempfile::Builder::new()
                .prefix("rgrid-bench-")
                .tempdir()
                .context("cannot make a directory for the grid")?;
            crate::output::say!("starting a grid in {} …", dir.path().display());
            let embedded = Box::pin(Embedded::start(dir.path(), &[])).await?;
            let (url, key) = (embedded.grid().api_url.clone(), embedded.grid().api_key.clone());
            let nats = Some(embedded.grid().nats_url.to_string());
            return Ok(Self {
                client: Client::new(&url, Some(&key))?,
                nats,
                own: Some((embedded, dir)),
            });
        }
        let nats = if args.connect.url.is_some() { None } else { nats_of(args) };
        Ok(Self {
            client: args.connect.client()?,
            nats,
            own: None,
        })
    }

    /// Takes down what was started for the run.
    ///
    /// # Errors
    /// If it does not end.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self.own {
            Some((embedded, _dir)) => Box::pin(embedded.stop()).await,
            None => Ok(()),
        }
    }
}

fn nats_of(args: &BenchArgs) -> Option<String> {
    let dir = args.connect.data_dir.clone().or_else(|| default_data_dir().ok())?;
    GridFile::load(&dir).ok().map(|grid| grid.nats_url.to_string())
}

/// A job for measuring.
pub(super) fn job(command: &[&str], executor: ExecutorKind, resources: Option<Resources>) -> Submission {
    Submission {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        executor: Some(executor),
        resources,
        labels: BTreeMap::from([("rgrid.bench".to_owned(), "true".to_owned())]),
        ..Submission::default()
    }
}
