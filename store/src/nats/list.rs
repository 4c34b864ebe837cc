//! Lists the objects of a bucket.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
};
use futures::{Stream, TryStreamExt as _, stream};
use object_store::{ObjectMeta, path::Path};
use tracing::debug;

use super::{bucket::Bucket, error::Error, info::ObjectInfo};

/// How many messages are requested at a time.
const PAGE: usize = 500;

/// The objects of a bucket in the order in which they were last written.
///
/// Names are base64 in the subjects, so that the server cannot filter by a prefix: all metadata is read.
pub(super) fn all(bucket: Arc<Bucket>) -> impl Stream<Item = Result<ObjectMeta, Error>> + Send + 'static {
    infos(bucket).try_filter_map(|info| async move {
        let location = Path::parse(&info.name).ok().filter(|_| !info.deleted);
        Ok(location.map(|location| info.meta(location)))
    })
}

/// The metadata of all objects, also of deleted ones.
pub(super) fn infos(bucket: Arc<Bucket>) -> impl Stream<Item = Result<ObjectInfo, Error>> + Send + 'static {
    let subjects = bucket.meta_subjects();
    last_of_each(bucket, subjects, false)
        .and_then(|message| async move { serde_json::from_slice(&message.payload).map_err(|error| failed(error.into())) })
}

/// The last message of each subject that matches `subjects`.
pub(super) fn last_of_each(
    bucket: Arc<Bucket>,
    subjects: String,
    headers_only: bool,
) -> impl Stream<Item = Result<Message, Error>> + Send + 'static {
    let start = async move {
        let config = pull::Config {
            description: Some("rgrid: list of files".to_owned()),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            filter_subject: subjects,
            headers_only,
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = bucket.stream.create_consumer(config).await;
        consumer.map(|consumer| (bucket, consumer)).map_err(|error| failed(error.into()))
    };
    stream::once(start)
        .map_ok(|(bucket, consumer)| pages(bucket, consumer))
        .try_flatten()
}

fn pages(bucket: Arc<Bucket>, consumer: PullConsumer) -> impl Stream<Item = Result<Message, Error>> + Send + 'static {
    stream::try_unfold((bucket, consumer), |(bucket, consumer)| async move {
        let page = consumer
            .fetch()
            .max_messages(PAGE)
            .messages()
            .await
            .map_err(|error| failed(error.into()))?;
        let page: Vec<Message> = page.try_collect().await.map_err(failed)?;
        if !page.is_empty() {
            return Ok(Some((stream::iter(page.into_iter().map(Ok)), (bucket, consumer))));
        }
        let name = &consumer.cached_info().name;
        if let Err(error) = bucket.stream.delete_consumer(name).await {
            debug!("the consumer {name} of a list was not deleted, and will expire: {error}");
        }
        Ok(None)
    })
    .try_flatten()
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Request {
        doing: "list the objects",
        source,
    }
}
