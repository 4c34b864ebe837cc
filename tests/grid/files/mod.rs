//! Files by content: the same behaviour over every kind of store, and what is particular to the bucket in `JetStream`.

pub(crate) mod behaviour;
mod bucket;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use grid_tests::{minio::Minio, nats::NatsServer};
use object_store::ObjectMeta;
use store::{Error, Files};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn jetstream_keeps_files_by_content() -> Result<()> {
    let server = NatsServer::start().await?;
    let files = Files::open(&"nats://".parse()?, Some(server.context().await?)).await?;
    behaviour::all(&files).await
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_keeps_files_by_content() -> Result<()> {
    let server = Minio::start().await?;
    let url = server.bucket("files").await?;
    let files = Files::open(&url.parse()?, None).await?;
    behaviour::all(&files).await?;

    for wrong in [url.replace("rgrid-test:", "somebody:"), url.replace("@files?", "@absent?")] {
        let opened = Files::open(&wrong.parse()?, None).await;
        ensure!(matches!(opened, Err(Error::Store { .. })), "{wrong}: {opened:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_files_by_content() -> Result<()> {
    let dir = TempDir::new()?;
    let files = Files::open(&format!("file://{}", dir.path().join("store").display()).parse()?, None).await?;
    behaviour::all(&files).await
}

/// Bytes that repeat nowhere and are the same at each run (xorshift).
fn content(size: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// All objects of the store.
async fn objects(files: &Files) -> Result<Vec<ObjectMeta>> {
    Ok(files.object_store().list(None).try_collect().await?)
}
