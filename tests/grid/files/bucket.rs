//! The bucket in `JetStream`: its format, what stays in it, and what it refuses.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{
    self,
    object_store::{Config, ObjectInfo},
    stream,
};
use bus::ids::Digest;
use bytes::Bytes;
use futures::TryStreamExt as _;
use grid_tests::nats::NatsServer;
use object_store::{GetOptions, MultipartUpload as _, ObjectStore as _, ObjectStoreExt as _, integration, path::Path};
use store::{Error, Files, nats::Nats};
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{MIB, behaviour::is_noticed, content, objects};

struct Store {
    server: NatsServer,
    context: jetstream::Context,
    files: Files,
}

impl Store {
    async fn start() -> Result<Self> {
        let server = NatsServer::start().await?;
        let context = server.context().await?;
        let files = Files::open(&"nats://".parse()?, Some(context.clone())).await?;
        Ok(Self { server, context, files })
    }

    async fn stock_client(&self) -> Result<jetstream::object_store::ObjectStore> {
        Ok(self.context.get_object_store("rgrid-files").await?)
    }

    async fn info(&self, digest: &Digest) -> Result<ObjectInfo> {
        Ok(self.stock_client().await?.info(Files::key(digest).as_ref()).await?)
    }

    async fn stream(&self) -> Result<stream::Stream> {
        Ok(self.context.get_stream("OBJ_rgrid-files").await?)
    }

    async fn messages(&self) -> Result<u64> {
        Ok(self.stream().await?.cached_info().state.messages)
    }

    /// Waits until the stream holds so many messages.
    async fn comes_to(&self, messages: u64) -> Result<()> {
        self.comes_to_hold(|held| held == messages).await
    }

    /// Waits until the number of messages in the stream is as it should be.
    async fn comes_to_hold(&self, expected: impl Fn(u64) -> bool) -> Result<()> {
        let mut held = self.messages().await?;
        let reached = async {
            while !expected(held) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                held = self.messages().await?;
            }
            anyhow::Ok(())
        };
        let ended = timeout(Duration::from_secs(10), reached).await;
        ended.with_context(|| format!("the stream still holds {held} messages"))?
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_is_an_object_store() -> Result<()> {
    let server = NatsServer::start().await?;
    let context = server.context().await?;
    // Each of the suite's checks wants an empty store.
    let bucket = async |name: &str| anyhow::Ok(Nats::open(context.clone(), &name.parse()?, 1).await?);
    integration::put_get_delete_list(&bucket("put_get_delete_list").await?).await;
    integration::get_opts(&bucket("get_opts").await?).await;
    integration::put_opts(&bucket("put_opts").await?, true).await;
    integration::stream_get(&bucket("stream_get").await?).await;
    integration::list_uses_directories_correctly(&bucket("list_uses_directories_correctly").await?).await;
    integration::list_with_delimiter(&bucket("list_with_delimiter").await?).await;
    integration::list_with_offset_exclusivity(&bucket("list_with_offset_exclusivity").await?).await;
    integration::rename_and_copy(&bucket("rename_and_copy").await?).await;
    integration::copy_if_not_exists(&bucket("copy_if_not_exists").await?).await;
    integration::copy_rename_nonexistent_object(&bucket("copy_rename_nonexistent_object").await?).await;
    integration::multipart_out_of_order(&bucket("multipart_out_of_order").await?).await;
    integration::multipart_race_condition(&bucket("multipart_race_condition").await?, true).await;
    ensure!(
        integration::get_nonexistent_object(&bucket("get_nonexistent_object").await?, None)
            .await
            .is_err()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_nats_client_reads_what_we_write() -> Result<()> {
    let store = Store::start().await?;
    let stock = store.stock_client().await?;
    for size in [0, 1, 5 * MIB + 3] {
        let bytes = content(size, 1);
        let digest = store.files.put_bytes(bytes.clone()).await?;
        let mut object = stock.get(Files::key(&digest).as_ref()).await?;
        ensure!(object.info().size == size && object.info().chunks == size.div_ceil(MIB));
        let mut read = Vec::new();
        // It checks the digest in the metadata.
        object.read_to_end(&mut read).await?;
        ensure!(read == bytes, "{size}");
    }
    let listed: Vec<_> = stock.list().await?.try_collect().await?;
    ensure!(listed.len() == 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_a_stock_nats_client_writes() -> Result<()> {
    let store = Store::start().await?;
    let bytes = content(5 * MIB + 3, 2);
    let digest = Digest::of(&bytes);
    // It sends what each read of its source yields as a chunk: here chunks of uneven sizes.
    let mut uneven = bytes[..100_000].chain(&bytes[100_000..]);
    store.stock_client().await?.put(Files::key(&digest).as_ref(), &mut uneven).await?;
    ensure!(store.files.get_bytes(&digest, usize::MAX).await? == bytes);
    ensure!(store.files.get_range(&digest, 99_999..3_000_001).await? == bytes[99_999..3_000_001]);
    let listed = objects(&store.files).await?;
    ensure!(listed.len() == 1 && listed[0].size == bytes.len() as u64 && listed[0].location == Files::key(&digest));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_unused_stays_in_the_stream() -> Result<()> {
    let store = Store::start().await?;
    let bytes = content(3 * MIB + 5, 3);
    let digest = Digest::of(&bytes);
    futures::future::try_join_all((0..8).map(|_| store.files.put_bytes(bytes.clone()))).await?;
    store.comes_to(5).await.context("after the same content came eight times at once")?;

    let other = Digest::of(b"another content");
    let source = futures::stream::iter(vec![bytes.clone(); 3].into_iter().map(Ok::<_, std::io::Error>));
    ensure!(store.files.put_stream(other, None, source).await.is_err());
    store.comes_to(5).await.context("after a refused upload")?;

    let mut upload = store.files.object_store().put_multipart(&Path::from("given-up")).await?;
    upload.put_part(bytes.clone().into()).await?;
    upload.put_part(bytes.clone().into()).await?;
    // A part is done when it is sent. The server answers a question about the stream before it has stored what came first.
    store
        .comes_to_hold(|held| held > 5)
        .await
        .context("the chunks are not there before the end")?;
    upload.abort().await?;
    assert_eq!(store.messages().await?, 5, "after an upload that was given up");

    let mut upload = store.files.object_store().put_multipart(&Path::from("dropped")).await?;
    upload.put_part(bytes.clone().into()).await?;
    drop(upload);
    store.files.settled().await;
    assert_eq!(store.messages().await?, 5, "after a dropped upload");

    store.files.object_store().delete(&Files::key(&digest)).await?;
    ensure!(store.messages().await? == 1, "only the mark of the deletion stays");
    ensure!(!store.files.has(&digest).await? && objects(&store.files).await?.is_empty());
    store.files.put_bytes(bytes.clone()).await?;
    ensure!(
        store.files.get_bytes(&digest, usize::MAX).await? == bytes,
        "deleted content can be stored again"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunks_of_dead_uploads_are_swept() -> Result<()> {
    let store = Store::start().await?;
    let hour = Duration::from_secs(3600);
    let kept = store.files.put_bytes(content(2 * MIB, 10)).await?;
    let removed = store.files.put_bytes(content(10, 11)).await?;
    store.files.object_store().delete(&Files::key(&removed)).await?;
    for at in 0..3 {
        store.context.publish("$O.rgrid-files.C.dead", content(10, at)).await?.await?;
    }
    ensure!(store.messages().await? == 2 + 1 + 1 + 3);
    ensure!(store.files.sweep(hour).await? == 0, "it may still be on its way");
    ensure!(store.files.sweep(Duration::ZERO).await? == 1);
    ensure!(store.messages().await? == 2 + 1 + 1);
    ensure!(store.files.get_bytes(&kept, usize::MAX).await? == content(2 * MIB, 10));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_lost_or_replaced_are_damage() -> Result<()> {
    let store = Store::start().await?;
    for (seed, size) in [(4, 100), (5, 3 * MIB)] {
        let (lost, replaced) = (content(size, seed), content(size, seed + 100));
        for (bytes, replacement) in [(lost, None), (replaced, Some(content(size, 6)))] {
            let digest = store.files.put_bytes(bytes.clone()).await?;
            let chunks = format!("$O.rgrid-files.C.{}", store.info(&digest).await?.nuid);
            store.stream().await?.purge().filter(&chunks).await?;
            for at in (0..replacement.as_ref().map_or(0, Bytes::len)).step_by(MIB) {
                let chunk = replacement
                    .as_ref()
                    .map(|bytes| bytes.slice(at..size.min(at + MIB)))
                    .unwrap_or_default();
                store.context.publish(chunks.clone(), chunk).await?.await?;
            }
            is_noticed(&store.files, &digest, size).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_chunk_in_the_right_place_is_damage() -> Result<()> {
    let store = Store::start().await?;
    let (bytes, wrong) = (content(3 * MIB, 7), content(3 * MIB, 8));
    let digest = store.files.put_bytes(wrong).await?;
    // The metadata of the one with the chunks of the other: as if the disk had changed under them.
    let mut info = store.info(&digest).await?;
    let target = Digest::of(&bytes);
    info.name = Files::key(&target).to_string();
    let name = base64_url(&info.name);
    store
        .context
        .publish(format!("$O.rgrid-files.M.{name}"), serde_json::to_vec(&info)?.into())
        .await?
        .await?;
    is_noticed(&store.files, &target, 3 * MIB).await?;

    // A reader that does not check the content itself is told by the store.
    info.digest = Some(format!("SHA-256={}", base64_url_bytes(target.as_bytes())));
    store
        .context
        .publish(format!("$O.rgrid-files.M.{name}"), serde_json::to_vec(&info)?.into())
        .await?
        .await?;
    let read = store
        .files
        .object_store()
        .get_opts(&Files::key(&target), GetOptions::default())
        .await?
        .bytes()
        .await;
    ensure!(read.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_after_the_server_was_killed() -> Result<()> {
    let mut store = Store::start().await?;
    let bytes = content(64 * MIB, 9);
    let digest = store.files.put_bytes(bytes.clone()).await?;
    let (_, mut stream) = store.files.get_stream(&digest).await?;
    let mut read = stream.try_next().await?.context("the content is empty")?.to_vec();
    store.server.restart().await?;
    while let Some(chunk) = stream.try_next().await? {
        read.extend_from_slice(&chunk);
    }
    ensure!(read == bytes);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_cannot_keep_files_is_refused_by_the_field() -> Result<()> {
    let server = NatsServer::start().await?;
    let context = server.context().await?;
    context
        .create_object_store(Config {
            bucket: "stock".to_owned(),
            ..Config::default()
        })
        .await?;
    Files::open(&"nats://stock".parse()?, Some(context.clone()))
        .await
        .context("a stock bucket is fit")?;

    context
        .create_object_store(Config {
            bucket: "ageing".to_owned(),
            max_age: Duration::from_secs(60),
            ..Config::default()
        })
        .await?;
    let opened = Files::open(&"nats://ageing".parse()?, Some(context.clone())).await;
    ensure!(
        matches!(&opened, Err(Error::Nats(store::nats::Error::Unfit { field: "max_age", .. }))),
        "{opened:?}"
    );

    let unconnected = Files::open(&"nats://".parse()?, None).await;
    ensure!(matches!(unconnected, Err(Error::NotConnected { .. })), "{unconnected:?}");
    Ok(())
}

fn base64_url(text: &str) -> String {
    base64_url_bytes(text.as_bytes())
}

fn base64_url_bytes(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE.encode(bytes)
}
