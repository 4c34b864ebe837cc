//! The files that manifests list, as rows.

use std::time::Duration;

use async_nats::jetstream;
use bus::output::manifest::Manifest;
use futures::{StreamExt as _, stream};
use store::{Files, StoreUrl};
use tokio::sync::OnceCell;
use tracing::{info, warn};

use crate::{
    project::{Committed, chain},
    rows::{ArtifactRow, Skipped},
    source::pauses,
};

/// How many manifests are read at once.
const AT_ONCE: usize = 16;
/// The largest manifest that is read, in bytes: some 300,000 files.
const MANIFEST_MAX: usize = 64 << 20;

/// Reads manifests from the file store, which is opened for the first one.
#[derive(Debug)]
pub(crate) struct Manifests {
    url: StoreUrl,
    js: jetstream::Context,
    files: OnceCell<Files>,
}

impl Manifests {
    pub(crate) fn new(url: StoreUrl, js: jetstream::Context) -> Self {
        Self {
            url,
            js,
            files: OnceCell::new(),
        }
    }

    /// The rows of these manifests, and the manifests that cannot be read. Waits out an outage of the store: without these rows, the tables
    /// would not be the fold of the log.
    pub(crate) async fn rows(&self, committed: &[Committed]) -> (Vec<ArtifactRow>, Vec<Skipped>) {
        // Collected first: a closure inside the stream would keep the whole future from being `Send` (rust-lang/rust#102211).
        let reads: Vec<_> = committed.iter().map(|committed| self.one(committed)).collect();
        let mut read = stream::iter(reads).buffered(AT_ONCE);
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        while let Some(one) = read.next().await {
            match one {
                Ok(some) => rows.extend(some),
                Err(one) => skipped.push(one),
            }
        }
        (rows, skipped)
    }

    async fn one(&self, committed: &Committed) -> Result<Vec<ArtifactRow>, Skipped> {
        let skip = |reason: String| {
            Skipped::new(
                committed.sequence,
                &committed.subject,
                &format!("its output files are not listed: {reason}"),
            )
        };
        let (mut pauses, mut away) = (pauses(), false);
        let manifest = loop {
            match self.manifest(committed).await {
                Ok(manifest) => break manifest,
                Err(error @ (store::Error::Missing { .. } | store::Error::Corrupt { .. } | store::Error::TooLarge { .. })) => {
                    return Err(skip(chain(&error)));
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        warn!("waiting for the file store {}: {}", self.url, chain(&error));
                    }
                    tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(2))).await;
                }
            }
        };
        if away {
            info!("the file store {} answers again", self.url);
        }
        let manifest = manifest.map_err(|error| skip(format!("content {} is not a manifest: {error}", committed.manifest.sha256)))?;
        Ok(rows(committed, manifest))
    }

    /// The manifest, or why the content is not one.
    async fn manifest(&self, committed: &Committed) -> Result<serde_json::Result<Manifest>, store::Error> {
        let files = self.files.get_or_try_init(|| Files::open(&self.url, Some(self.js.clone()))).await?;
        let bytes = files.get_bytes(&committed.manifest.sha256, MANIFEST_MAX).await?;
        Ok(serde_json::from_slice(&bytes))
    }
}

fn rows(committed: &Committed, manifest: Manifest) -> Vec<ArtifactRow> {
    let row = |(position, file): (i32, bus::output::manifest::OutputFile)| ArtifactRow {
        job: committed.job,
        attempt: committed.attempt,
        position,
        path: file.path.to_string(),
        sha256: file.sha256,
        size: file.size,
        executable: file.executable,
    };
    (0..).zip(manifest.outputs).map(row).collect()
}
