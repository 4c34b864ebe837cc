//! What every store of files does.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use object_store::{ObjectStoreExt as _, PutPayload};
use store::{Error, Files};
use tempfile::TempDir;

use super::{MIB, content, objects};

pub(crate) async fn all(files: &Files) -> Result<()> {
    a_refused_stream_leaves_nothing(files)
        .await
        .context("a refused stream leaves nothing")?;
    an_abandoned_stream_leaves_nothing(files)
        .await
        .context("an abandoned stream leaves nothing")?;
    what_is_put_comes_back(files).await.context("what is put comes back")?;
    a_range_is_that_part(files).await.context("a range is that part")?;
    content_is_stored_once(files).await.context("content is stored once")?;
    what_is_not_there_is_missing(files).await.context("what is not there is missing")?;
    damage_is_noticed(files).await.context("damage is noticed")
}

async fn what_is_put_comes_back(files: &Files) -> Result<()> {
    let dir = TempDir::new()?;
    for (seed, size) in [0, 1, MIB, MIB + 1, 20 * MIB].into_iter().enumerate() {
        let seed = seed as u64 * 3;
        let bytes = content(size, seed);
        let digest = files.put_bytes(bytes.clone()).await?;
        ensure!(digest == Digest::of(&bytes));
        comes_back(files, &bytes, dir.path())
            .await
            .with_context(|| format!("{size} bytes from memory"))?;

        let bytes = content(size, seed + 1);
        let path = dir.path().join("input");
        fs::write(&path, &bytes)?;
        ensure!(files.put_file(&path).await? == (Digest::of(&bytes), size as u64));
        comes_back(files, &bytes, dir.path())
            .await
            .with_context(|| format!("{size} bytes from a file"))?;

        let bytes = content(size, seed + 2);
        files
            .put_stream(Digest::of(&bytes), Some(size as u64), pieces(&bytes, 70_000))
            .await?;
        comes_back(files, &bytes, dir.path())
            .await
            .with_context(|| format!("{size} bytes from a stream"))?;
    }
    Ok(())
}

async fn comes_back(files: &Files, bytes: &Bytes, dir: &Path) -> Result<()> {
    let digest = Digest::of(bytes);
    ensure!(files.has(&digest).await?);
    ensure!(files.get_bytes(&digest, bytes.len()).await? == bytes);
    let (size, stream) = files.get_stream(&digest).await?;
    let streamed: Vec<Bytes> = stream.try_collect().await?;
    ensure!(size == bytes.len() as u64 && streamed.concat() == *bytes);
    for (executable, mode) in [(false, 0o644), (true, 0o755)] {
        let path = dir.join("output");
        ensure!(files.get_file(&digest, &path, executable).await? == size);
        ensure!(fs::read(&path)? == *bytes);
        ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == mode);
    }
    let too_large = files.get_bytes(&digest, bytes.len().saturating_sub(1)).await;
    ensure!(
        bytes.is_empty() || matches!(too_large, Err(Error::TooLarge { .. })),
        "{too_large:?}"
    );
    Ok(())
}

async fn a_range_is_that_part(files: &Files) -> Result<()> {
    let size = 6 * MIB + 100;
    let bytes = content(size, 50);
    let digest = files.put_bytes(bytes.clone()).await?;
    let edges = [
        (0, 1),
        (0, size),
        (MIB - 1, MIB + 1),
        (MIB, 2 * MIB),
        (5, 3 * MIB + 7),
        (size - 1, size),
        (6 * MIB, size),
        (4 * MIB + 9, 4 * MIB + 10),
    ];
    for (start, end) in edges {
        let part = files.get_range(&digest, start as u64..end as u64).await?;
        ensure!(part == bytes[start..end], "{start}..{end}");
    }
    for (start, end) in [(size, size + 1), (size - 1, size + 1), (0, size + 1), (7, 7)] {
        let part = files.get_range(&digest, start as u64..end as u64).await;
        ensure!(matches!(part, Err(Error::Range { .. })), "{start}..{end}: {part:?}");
    }
    Ok(())
}

async fn content_is_stored_once(files: &Files) -> Result<()> {
    let before = objects(files).await?.len();
    let bytes = content(3 * MIB + 5, 60);
    let digest = Digest::of(&bytes);
    let dir = TempDir::new()?;
    let path = dir.path().join("input");
    fs::write(&path, &bytes)?;
    let writers = (0..6).map(async |n| match n % 3 {
        0 => files.put_bytes(bytes.clone()).await.map(drop),
        1 => files.put_file(&path).await.map(drop),
        _ => files.put_stream(digest, None, pieces(&bytes, 100_000)).await,
    });
    try_join_all(writers).await?;
    ensure!(objects(files).await?.len() == before + 1);
    ensure!(files.get_bytes(&digest, usize::MAX).await? == bytes);

    let first = files.object_store().head(&Files::key(&digest)).await?;
    files.put_bytes(bytes.clone()).await?;
    files.put_file(&path).await?;
    let unread = stream::once(async { Err::<Bytes, _>("a stream of known content is not read") });
    files.put_stream(digest, None, unread).await?;
    ensure!(
        files.object_store().head(&Files::key(&digest)).await? == first,
        "it was stored again"
    );
    Ok(())
}

async fn a_refused_stream_leaves_nothing(files: &Files) -> Result<()> {
    for size in [10, 5 * MIB] {
        let bytes = content(size, 70);
        let (right, wrong) = (Digest::of(&bytes), Digest::of(b"something else"));
        let announced = size as u64;
        let refused = [
            files.put_stream(wrong, None, pieces(&bytes, 100_000)).await,
            files.put_stream(wrong, Some(announced), pieces(&bytes, 100_000)).await,
            files.put_stream(right, Some(announced - 1), pieces(&bytes, 100_000)).await,
            files.put_stream(right, Some(announced + 1), pieces(&bytes, 100_000)).await,
        ];
        for result in refused {
            ensure!(matches!(result, Err(Error::Mismatch { .. })), "{result:?}");
        }
        let broken = pieces(&bytes, 100_000).chain(stream::once(async { Err("the line went dead") }));
        let result = files.put_stream(right, Some(announced), broken).await;
        ensure!(matches!(result, Err(Error::Input(_))), "{result:?}");
        ensure!(files.missing(&[right, wrong]).await? == [right, wrong]);
    }
    ensure!(objects(files).await?.is_empty());
    Ok(())
}

async fn an_abandoned_stream_leaves_nothing(files: &Files) -> Result<()> {
    let bytes = content(5 * MIB, 80);
    let digest = Digest::of(&bytes);
    let (all_sent, sent) = tokio::sync::oneshot::channel();
    let endless = pieces(&bytes, 100_000).chain(stream::once(async move {
        let _received = all_sent.send(());
        std::future::pending().await
    }));
    tokio::select! {
        result = files.put_stream(digest, None, endless) => anyhow::bail!("it ended: {result:?}"),
        sent = sent => sent?,
    }
    ensure!(objects(files).await?.is_empty());
    ensure!(!files.has(&digest).await?);
    Ok(())
}

async fn what_is_not_there_is_missing(files: &Files) -> Result<()> {
    let dir = TempDir::new()?;
    let there = files.put_bytes(content(10, 90)).await?;
    let absent = Digest::of(b"never stored");
    ensure!(files.missing(&[absent, there, absent]).await? == [absent, absent]);
    let results = [
        files.get_bytes(&absent, 10).await.map(drop),
        files.get_stream(&absent).await.map(drop),
        files.get_range(&absent, 0..1).await.map(drop),
        files.get_file(&absent, &dir.path().join("x"), false).await.map(drop),
    ];
    for result in results {
        ensure!(matches!(result, Err(Error::Missing { digest }) if digest == absent), "{result:?}");
    }
    ensure!(fs::read_dir(dir.path())?.next().is_none());
    let unreadable = files.put_file(&dir.path().join("x")).await;
    ensure!(matches!(unreadable, Err(Error::Io { .. })), "{unreadable:?}");
    Ok(())
}

async fn damage_is_noticed(files: &Files) -> Result<()> {
    for size in [100, 3 * MIB] {
        let digest = files.put_bytes(content(size, 100)).await?;
        let damaged = PutPayload::from(content(size, 101));
        files.object_store().put(&Files::key(&digest), damaged).await?;
        is_noticed(files, &digest, size).await.with_context(|| format!("{size} bytes"))?;
    }
    Ok(())
}

/// Every way of reading `digest` says that the content is damaged, and none leaves a file.
pub(super) async fn is_noticed(files: &Files, digest: &Digest, size: usize) -> Result<()> {
    let dir = TempDir::new()?;
    let (announced, stream) = files.get_stream(digest).await?;
    let items: Vec<_> = stream.collect().await;
    let passed: usize = items.iter().flatten().map(Bytes::len).sum();
    ensure!(announced == size as u64 && passed < size, "all {passed} bytes were passed on");
    let results = [
        files.get_bytes(digest, size).await.map(drop),
        items.into_iter().try_for_each(|item| item.map(drop)),
        files.get_file(digest, &dir.path().join("x"), false).await.map(drop),
    ];
    for result in results {
        ensure!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    }
    ensure!(fs::read_dir(dir.path())?.next().is_none());
    Ok(())
}

fn pieces(bytes: &Bytes, size: usize) -> impl futures::Stream<Item = Result<Bytes, &'static str>> + Send + use<> {
    let bytes = bytes.clone();
    stream::iter(
        (0..bytes.len())
            .step_by(size)
            .map(move |at| Ok(bytes.slice(at..bytes.len().min(at + size))))
            .collect::<Vec<_>>(),
    )
}
