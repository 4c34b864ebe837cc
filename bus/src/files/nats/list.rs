//! All objects of a bucket.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectMeta, path::Path};
use tracing::debug;

use super::{
    bucket::{Bucket, Error},
    info::ObjectInfo,
};

/// How many objects are asked for at a time.
const PAGE: usize = 500;

/// The objects of a bucket in the order in which they were last written.
///
/// Names stand in the subjects as base64, so the server cannot select by a prefix of them: all metadata is read.
pub(super) fn all(bucket: Arc<Bucket>) -> impl Stream<Item = Result<ObjectMeta, Error>> + Send + 'static {
    let start = async move {
        let config = pull::Config {
            description: Some("rgrid: list of files".to_owned()),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            filter_subject: bucket.meta_subjects(),
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = bucket.stream.create_consumer(config).await;
        consumer
            .map(|consumer| (bucket, consumer))
            .map_err(|error| Error::request("list the objects")(error.into()))
    };
    stream::once(start)
        .map_ok(|(bucket, consumer)| pages(bucket, consumer))
        .try_flatten()
}

fn pages(
    bucket: Arc<Bucket>,
    consumer: async_nats::jetstream::consumer::PullConsumer,
) -> impl Stream<Item = Result<ObjectMeta, Error>> + Send + 'static {
    stream::try_unfold((bucket, consumer), |(bucket, consumer)| async move {
        let page = page(&consumer).await?;
        if page.is_empty() {
            let name = &consumer.cached_info().name;
            if let Err(error) = bucket.stream.delete_consumer(name).await {
                debug!("the consumer {name} of a list goes by itself: {error}");
            }
            return Ok(None);
        }
        let objects = page.into_iter().filter(|(info, _)| !info.deleted).filter_map(|(info, sequence)| {
            let location = Path::parse(&info.name).ok()?;
            Some(Ok(info.meta(location, sequence)))
        });
        Ok(Some((stream::iter(objects.collect::<Vec<_>>()), (bucket, consumer))))
    })
    .try_flatten()
}

async fn page(consumer: &async_nats::jetstream::consumer::PullConsumer) -> Result<Vec<(ObjectInfo, u64)>, Error> {
    let failed = |error| Error::request("list the objects")(error);
    let mut messages = consumer
        .fetch()
        .max_messages(PAGE)
        .messages()
        .await
        .map_err(|error| failed(error.into()))?;
    let mut page = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message.map_err(failed)?;
        let sequence = message.info().map_err(failed)?.stream_sequence;
        let info = serde_json::from_slice(&message.payload).map_err(|error| failed(error.into()))?;
        page.push((info, sequence));
    }
    Ok(page)
}
