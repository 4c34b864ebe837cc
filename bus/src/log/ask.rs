//! Requests to a stream. A request is sent again if the server that should answer is gone.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self,
        stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream},
    },
};
use backon::{ConstantBuilder, Retryable as _};

use super::{
    connect::{connection, unless_reconnected},
    stored::{Error, Stored},
};

/// With replicas: the time limit of a request, the pause before the next one, and the number of further requests. A request that reached
/// a dead leader is never answered, and an election takes up to 9 s (measured on 2.15.1, after the leader was killed).
const ASK: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(200);
const MORE_ASKS: usize = 7;
/// How often a request is sent again at once because its connection broke.
pub(super) const RECONNECTS_MAX: usize = 3;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A stream that requests are sent to.
pub(super) struct Asker {
    stream: Stream<()>,
    client: Client,
    /// Whether there are replicas, which may lag behind.
    clustered: bool,
}

impl Asker {
    /// For this stream.
    ///
    /// # Errors
    /// If the stream's name is invalid.
    pub(super) async fn of(js: &jetstream::Context, stream: &str) -> Result<Self, Error> {
        let (mut js, client) = (js.clone(), js.client());
        let clustered = client.server_info().cluster.is_some();
        if clustered {
            js.set_timeout(ASK);
        }
        let stream = js.get_stream_no_info(stream).await.map_err(|source| Error::Stream {
            stream: stream.to_owned(),
            source,
        })?;
        Ok(Self { stream, client, clustered })
    }

    /// Sends a request until there is an answer, or until an election has had time to finish. Without replicas, it is only sent again if
    /// its connection breaks.
    async fn answered<T, E, F, A>(&self, ask: A) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        A: Fn() -> F,
    {
        let ask = &ask;
        let once = || async move {
            for _ in 0..RECONNECTS_MAX {
                let connection = connection(&self.client);
                if let Some(answer) = unless_reconnected(&self.client, connection, ask()).await {
                    return answer;
                }
            }
            ask().await
        };
        let pauses = ConstantBuilder::default().with_delay(ASK_AGAIN).with_max_times(MORE_ASKS);
        once.retry(pauses).when(|_| self.clustered).await
    }

    /// The last message under a filter. With replicas, the stream's leader is asked: another replica may not have the message yet, and a
    /// decision on an old state would be rejected.
    pub(super) async fn last(&self, filter: &str) -> Result<Option<Stored>, Error> {
        let failed = |source: Failure| read_failed(filter.to_owned(), source);
        if self.clustered {
            let ask = || async move {
                match self.stream.get_last_raw_message_by_subject(filter).await {
                    Ok(message) => Ok(Some(message.into())),
                    Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
                    Err(error) => Err(error),
                }
            };
            return self.answered(ask).await.map_err(|error| failed(error.into()));
        }
        let ask = || async move {
            match self.stream.direct_get_last_for_subject(filter).await {
                Ok(message) => Ok(Some(message.into())),
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.answered(ask).await.map_err(|error| failed(error.into()))
    }

    /// The message at a sequence. If a replica does not have it, the leader is asked.
    pub(super) async fn at(&self, sequence: u64) -> Result<Stored, Error> {
        let ask = || async move {
            match self.stream.direct_get(sequence).await {
                Ok(message) => Ok(message.into()),
                Err(error) if self.clustered && error.kind() == DirectGetErrorKind::NotFound => {
                    let message = self.stream.get_raw_message(sequence).await;
                    message.map(Stored::from).map_err(Failure::from)
                }
                Err(error) => Err(Failure::from(error)),
            }
        };
        let answer = self.answered(ask).await;
        answer.map_err(|source| read_failed(format!("sequence {sequence}"), source))
    }

    /// The first message on a subject.
    pub(super) async fn first(&self, subject: &str) -> Result<Stored, Error> {
        let ask = || self.stream.direct_get_next_for_subject(subject, Some(1));
        let answer = self.answered(ask).await;
        answer
            .map(Stored::from)
            .map_err(|error| read_failed(subject.to_owned(), error.into()))
    }
}

fn read_failed(what: String, source: Failure) -> Error {
    Error::Read { what, source }
}
