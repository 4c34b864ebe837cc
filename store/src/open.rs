//! Opens the store at a URL.

use std::{path::Path, sync::Arc, time::Duration};

use async_nats::jetstream;
use object_store::{
    ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path as Key,
};
use url::Url;

use super::{Error, StoreUrl, nats::Nats, presign::Presigner, url::Public};

/// One MiB in bytes.
pub(super) const MIB: usize = 1024 * 1024;

/// How long a failed request to S3 is retried.
const S3_PATIENCE: Duration = Duration::from_secs(20);

/// An open store.
pub(super) struct Opened {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The bytes of a part of an upload.
    pub(super) part_size: usize,
    /// The same store again, if it is in NATS.
    pub(super) nats: Option<Nats>,
    /// Signs requests for clients, if it is in S3.
    pub(super) presigner: Option<Presigner>,
}

pub(super) async fn open(url: &StoreUrl, context: Option<jetstream::Context>) -> Result<Opened, Error> {
    match url {
        StoreUrl::Nats { bucket, replicas } => {
            let context = context.ok_or_else(|| Error::NotConnected { url: url.to_string() })?;
            let nats = Nats::open(context, bucket, *replicas).await?;
            let store = Arc::new(nats.clone());
            Ok(Opened {
                store,
                part_size: MIB,
                nats: Some(nats),
                presigner: None,
            })
        }
        StoreUrl::S3 {
            bucket,
            endpoint,
            region,
            credentials,
            public,
        } => {
            let (store, presigner) = s3(bucket, (endpoint.as_ref(), public), region.as_deref(), credentials.as_ref()).await?;
            // S3 takes at most 10,000 parts, of 5 MiB or more.
            Ok(Opened {
                store: Arc::new(store),
                part_size: 8 * MIB,
                nats: None,
                presigner,
            })
        }
        StoreUrl::File { dir } => {
            let store = directory(dir).await?;
            Ok(Opened {
                store: Arc::new(store),
                part_size: 4 * MIB,
                nats: None,
                presigner: None,
            })
        }
    }
}

async fn s3(
    bucket: &str,
    (endpoint, public): (Option<&Url>, &Public),
    region: Option<&str>,
    credentials: Option<&(String, String)>,
) -> Result<(AmazonS3, Option<Presigner>), Error> {
    // A large body may take long, as long as it makes progress.
    let client = [(ClientConfigKey::Timeout, "1 day"), (ClientConfigKey::ReadTimeout, "30 seconds")];
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(RetryConfig {
        max_retries: 5,
        retry_timeout: S3_PATIENCE,
        ..RetryConfig::default()
    });
    // Some servers do not support bulk deletes, and the answers of others name no object (tested with JuiceFS's gateway).
    builder = builder.with_disable_bulk_delete(true);
    for (key, value) in client {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    if let Some(endpoint) = endpoint {
        builder = builder
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_allow_http(endpoint.scheme() == "http")
            .with_virtual_hosted_style_request(false);
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    if let Some((key, secret)) = credentials {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let named = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let own = named.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let server = match public {
        Public::None => None,
        Public::At(url) => Some(url.as_str()),
        Public::AsHere => Some(own.as_str()),
    };
    let bucket_at = |server: &str| format!("{}/{bucket}", server.trim_end_matches('/')).parse::<Url>().ok();
    let addresses = server.and_then(bucket_at).zip(bucket_at(&own));
    let store = builder.build().map_err(|source| Error::store("set up the S3 store", source))?;
    let presigner = addresses.map(|(bucket, own)| Presigner {
        credentials: Arc::clone(store.credentials()),
        bucket,
        own,
        region,
    });
    // A cheap request that finds a wrong key or a missing bucket now: no object has this prefix.
    let answer = store.list_with_delimiter(Some(&Key::from("sha256/none"))).await;
    answer
        .map(|_| (store, presigner))
        .map_err(|source| Error::store("open the S3 bucket; check its name, its endpoint and the credentials", source))
}

async fn directory(dir: &Path) -> Result<LocalFileSystem, Error> {
    let made = tokio::fs::create_dir_all(dir).await;
    made.map_err(|source| Error::Io {
        doing: "create",
        path: dir.to_owned(),
        source,
    })?;
    let store = LocalFileSystem::new_with_prefix(dir);
    let store = store.map_err(|source| Error::store("open the directory of the files", source))?;
    // Durable like the other stores: acknowledged writes survive a power cut.
    Ok(store.with_fsync(true))
}
