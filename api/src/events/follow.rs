//! `GET /v1/facts`: streams events as they are stored.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use axum::{extract::State, http::HeaderMap, response::Response};
use bus::{
    ids::{BatchId, JobId, Namespace},
    log::{EVENTS, replay},
    subjects::{self, EventSubject},
};
use serde::Deserialize;
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use crate::{
    app::Shared,
    batches::find,
    error::ApiError,
    events::waiters::{Waiters, WakeUp},
    http::{
        extract::{Query, header, namespace, parameter},
        sse::{self, Events},
        stream_task::spawn_stream_task,
    },
};

/// The most facts in one read of the log.
const READ_MAX: usize = 256;
/// The size at which a chunk of the answer is sent, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// How long facts are collected into one chunk; the first fact after a pause is sent at once. Each chunk wakes the connection and its
/// reader, which costs more than its content.
const LINGER: Duration = Duration::from_millis(5);

/// The pause after a read of the log failed.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause before a replica that lags behind is read again.
const LAG_PAUSE: Duration = Duration::from_millis(50);

/// The facts from now on, and a sequence that all of them come after.
type Live = (broadcast::Receiver<WakeUp>, u64);

/// Which facts the client wants.
#[derive(Debug, Default)]
struct FactFilter {
    namespace: Option<Namespace>,
    batch: Option<BatchMembers>,
    /// Event types, with or without their version; empty: all.
    types: HashSet<String>,
}

/// The members of a batch, each with its index.
#[derive(Debug)]
struct BatchMembers {
    id: BatchId,
    members: HashMap<JobId, u32>,
}

/// `GET /v1/facts?after=<sequence>&types=job.finished,…&namespace=&batch=`; the facts of a batch start at its submission, unless `after` is given
pub(crate) async fn facts(State(app): State<Shared>, query: Query, headers: HeaderMap) -> Result<Response, ApiError> {
    let (mut after, mut wanted, mut batch) = (None, FactFilter::default(), None);
    query.each(|name, value| {
        match name {
            "after" => after = Some(parameter(name, &value)?),
            "types" => wanted
                .types
                .extend(value.split(',').filter(|kind| !kind.is_empty()).map(ToOwned::to_owned)),
            "namespace" => wanted.namespace = Some(namespace(&value)?),
            "batch" => batch = Some(parameter(name, &value)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if let Some(last) = header(&headers, "last-event-id")? {
        after = Some(parameter("Last-Event-ID", last)?);
    }
    if let Some(id) = batch {
        let batch = find(&app, id).await?;
        after.get_or_insert(batch.first_sequence.saturating_sub(1));
        wanted.namespace = Some(batch.namespace);
        let members = (0..batch.submitted.total)
            .map(|index| (JobId::of_member(id, index), index))
            .collect();
        wanted.batch = Some(BatchMembers { id, members });
    }
    // Subscribed before the answer begins, so that it holds everything that is stored from then on.
    let live = after.is_none().then(|| app.waiters.everything());
    let log = LogReader {
        client: app.bus.client.clone(),
        waiters: Arc::clone(&app.waiters),
        clustered: app.replicas > 1,
    };
    let chunks = spawn_stream_task(&app, move |chunks| async move {
        let _unread = send_all(&log, after.unwrap_or(0), live, &wanted, &chunks).await;
    });
    Ok(sse::respond(chunks))
}

/// Sends live facts until one was missed; returns the sequence to continue from, or `None` when the client is gone.
async fn send_live(
    mut facts: broadcast::Receiver<WakeUp>,
    mut last: u64,
    wanted: &FactFilter,
    chunks: &mpsc::Sender<Events>,
) -> Option<u64> {
    let mut earliest = Instant::now();
    loop {
        let mut next = facts.recv().await.ok();
        sleep_until(earliest).await;
        let mut chunk = Events::default();
        let mut missed = false;
        loop {
            match next {
                // Already read from the log.
                Some(WakeUp::Fact(fact)) if fact.sequence <= last => {}
                Some(WakeUp::Fact(fact)) => {
                    last = fact.sequence;
                    wanted.push(&mut chunk, &fact.subject, fact.sequence, &fact.payload);
                }
                Some(WakeUp::Reset) | None => missed = true,
            }
            if missed || chunk.len() >= CHUNK_BYTES {
                break;
            }
            next = match facts.try_recv() {
                Ok(wake_up) => Some(wake_up),
                Err(broadcast::error::TryRecvError::Empty) => break,
                Err(broadcast::error::TryRecvError::Lagged(_) | broadcast::error::TryRecvError::Closed) => None,
            };
        }
        if !chunk.is_empty() {
            chunks.send(chunk).await.ok()?;
            earliest = Instant::now() + LINGER;
        }
        if missed {
            debug!("a client that follows facts missed some after {last}; continuing from the log");
            return Some(last);
        }
    }
}

/// Sends the facts after a sequence from the log, then the live facts; goes back to the log when a live fact was missed.
async fn send_all(log: &LogReader, after: u64, live: Option<Live>, wanted: &FactFilter, chunks: &mpsc::Sender<Events>) -> Option<()> {
    let (mut after, mut live) = (after, live);
    loop {
        let (facts, last) = match live.take() {
            Some(live) => live,
            None => log.replay(after, wanted, chunks).await?,
        };
        after = send_live(facts, last, wanted, chunks).await?;
    }
}

/// Reads the log by direct gets, for which the server keeps no state: there may be thousands of followers.
struct LogReader {
    client: async_nats::Client,
    waiters: Arc<Waiters>,
    /// Whether a replica that lags behind may answer.
    clustered: bool,
}

impl LogReader {
    /// Sends the facts after a sequence until the live facts continue without a gap; `None` when the client is gone.
    async fn replay(&self, after: u64, wanted: &FactFilter, chunks: &mpsc::Sender<Events>) -> Option<Live> {
        // With a filter, a replica's answer does not show how far behind it is, so a cluster is read without one.
        let narrowed = wanted.namespace.as_ref().filter(|_| !self.clustered);
        let filter = narrowed.map_or_else(|| subjects::EVENTS.to_owned(), subjects::events_of);
        let mut after = after;
        loop {
            // Later facts arrive live, so that reading up to here is enough.
            let (facts, head) = self.waiters.everything();
            loop {
                let piece = match replay::piece(&self.client, EVENTS, &filter, after, READ_MAX).await {
                    Ok(piece) => piece,
                    Err(error) => {
                        debug!("cannot read the log for a client that follows facts: {error}; trying again");
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                after = piece.messages.last().map_or(after, |last| last.sequence);
                let mut chunk = Events::default();
                for fact in piece.messages {
                    wanted.push(&mut chunk, &fact.subject, fact.sequence, &fact.payload);
                }
                if !chunk.is_empty() {
                    chunks.send(chunk).await.ok()?;
                }
                if piece.is_last {
                    break;
                }
            }
            if after >= head || !self.clustered {
                return Some((facts, after.max(head)));
            }
            sleep(LAG_PAUSE).await;
        }
    }
}

impl FactFilter {
    /// Adds a fact that passes the filter: the stored envelope, with its sequence and its subject's parts.
    fn push(&self, events: &mut Events, subject: &str, sequence: u64, payload: &[u8]) -> Option<()> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
        }
        let about = match EventSubject::parse(subject)? {
            EventSubject::Job { namespace, job, .. } => {
                if self.namespace.as_ref().is_some_and(|wanted| *wanted != namespace) {
                    return None;
                }
                match &self.batch {
                    None => format!(r#""namespace":"{namespace}","job":"{job}""#),
                    Some(of) => format!(r#""namespace":"{namespace}","job":"{job}","index":{}"#, of.members.get(&job)?),
                }
            }
            EventSubject::Batch { namespace, batch } => {
                if self.namespace.as_ref().is_some_and(|wanted| *wanted != namespace)
                    || self.batch.as_ref().is_some_and(|of| of.id != batch)
                {
                    return None;
                }
                format!(r#""namespace":"{namespace}","batch":"{batch}""#)
            }
            EventSubject::Worker(_) | EventSubject::Runtimes | EventSubject::Image(_)
                if self.namespace.is_some() || self.batch.is_some() =>
            {
                return None;
            }
            EventSubject::Worker(worker) => format!(r#""worker":"{worker}""#),
            EventSubject::Runtimes => r#""of":"runtimes""#.to_owned(),
            EventSubject::Image(name) => format!(r#""image":"{name}""#),
        };
        let head: Head<'_> = serde_json::from_slice(payload).ok()?;
        if !self.types.is_empty() && !self.wants(&head.r#type) {
            return None;
        }
        let stored = std::str::from_utf8(payload).ok()?.trim_start().strip_prefix('{')?;
        // SSE cannot carry line breaks. Events of rgrid have none, and between JSON tokens a space is the same.
        let stored = if stored.contains(['\r', '\n']) {
            Cow::from(stored.replace(['\r', '\n'], " "))
        } else {
            Cow::from(stored)
        };
        events.push_line(sequence, &[r#"{"sequence":"#, &sequence.to_string(), ",", &about, ",", &stored]);
        Some(())
    }

    fn wants(&self, kind: &str) -> bool {
        self.types.contains(kind) || kind.rsplit_once(".v").is_some_and(|(family, _)| self.types.contains(family))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_wanted_with_and_without_its_version() {
        let wanted = |types: &[&str]| FactFilter {
            namespace: None,
            batch: None,
            types: types.iter().map(ToString::to_string).collect(),
        };
        assert!(wanted(&["job.finished"]).wants("job.finished.v1"));
        assert!(wanted(&["job.finished.v1"]).wants("job.finished.v1"));
        assert!(!wanted(&["job.finished.v2"]).wants("job.finished.v1"));
        assert!(!wanted(&["job"]).wants("job.finished.v1"));
    }
}
