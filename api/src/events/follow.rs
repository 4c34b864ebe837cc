//! `GET /v1/facts`: everything that happens, as it is stored.

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
    events::waiters::{Waiters, Woken},
    http::{
        extract::{Query, header, namespace, parameter},
        sse::{self, Events},
        stream_task::produce,
    },
};

/// Facts that are read from the log at once, and bytes of them that are sent as one piece, at most.
const CHUNK: (usize, usize) = (256, 64 << 10);
/// How long facts gather while they keep coming; the first one after a rest goes out at once. Each piece wakes the connection
/// and its reader, which costs more than what is in it.
const LINGER: Duration = Duration::from_millis(5);

/// The pause before the log is read again that could not be, and before a replica is asked again that is behind.
const PAUSE: Duration = Duration::from_millis(500);
const BEHIND: Duration = Duration::from_millis(50);

/// What is told from now on, and a sequence behind which all of that stands.
type Live = (broadcast::Receiver<Woken>, u64);

/// Which facts are asked for.
#[derive(Debug, Default)]
struct Wanted {
    namespace: Option<Namespace>,
    batch: Option<OfBatch>,
    /// With or without their version; empty: all.
    types: HashSet<String>,
}

/// The members of a batch, and the place of each.
#[derive(Debug)]
struct OfBatch {
    id: BatchId,
    members: HashMap<JobId, u32>,
}

/// `GET /v1/facts?after=<sequence>&types=job.finished,…&namespace=&batch=`; those of a batch from its beginning on, unless `after` says otherwise
pub(crate) async fn facts(State(app): State<Shared>, query: Query, headers: HeaderMap) -> Result<Response, ApiError> {
    let (mut after, mut wanted, mut batch) = (None, Wanted::default(), None);
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
        wanted.batch = Some(OfBatch { id, members });
    }
    // Subscribed to here, so that whatever is stored after the answer has begun is in it.
    let live = after.is_none().then(|| app.waiters.everything());
    let log = LogReader {
        client: app.bus.client.clone(),
        waiters: Arc::clone(&app.waiters),
        clustered: app.replicas > 1,
    };
    let chunks = produce(&app, move |chunks| async move {
        let _unread = tell_all(&log, after.unwrap_or(0), live, &wanted, &chunks).await;
    });
    Ok(sse::respond(chunks))
}

/// Hands on what is told, until something was missed; returns the sequence to read on from, or nothing where nobody reads any more.
async fn listen(mut facts: broadcast::Receiver<Woken>, mut last: u64, wanted: &Wanted, chunks: &mpsc::Sender<Events>) -> Option<u64> {
    let mut earliest = Instant::now();
    loop {
        let mut next = facts.recv().await.ok();
        sleep_until(earliest).await;
        let mut chunk = Events::default();
        let mut missed = false;
        loop {
            match next {
                // It was read from the log before.
                Some(Woken::Fact(fact)) if fact.sequence <= last => {}
                Some(Woken::Fact(fact)) => {
                    last = fact.sequence;
                    wanted.tell(&mut chunk, &fact.subject, fact.sequence, &fact.payload);
                }
                Some(Woken::Reset) | None => missed = true,
            }
            if missed || chunk.len() >= CHUNK.1 {
                break;
            }
            next = match facts.try_recv() {
                Ok(woken) => Some(woken),
                Err(broadcast::error::TryRecvError::Empty) => break,
                Err(broadcast::error::TryRecvError::Lagged(_) | broadcast::error::TryRecvError::Closed) => None,
            };
        }
        if !chunk.is_empty() {
            chunks.send(chunk).await.ok()?;
            earliest = Instant::now() + LINGER;
        }
        if missed {
            debug!("a follower of all facts missed some behind {last}; it reads on from the log");
            return Some(last);
        }
    }
}

/// Hands on what stands in the log behind a sequence, then what is told, and what stands in the log where something was missed.
async fn tell_all(log: &LogReader, after: u64, live: Option<Live>, wanted: &Wanted, chunks: &mpsc::Sender<Events>) -> Option<()> {
    let (mut after, mut live) = (after, live);
    loop {
        let (facts, last) = match live.take() {
            Some(live) => live,
            None => log.replay(after, wanted, chunks).await?,
        };
        after = listen(facts, last, wanted, chunks).await?;
    }
}

/// Reads the log by direct reads, of which the server keeps nothing: there may be thousands of followers.
struct LogReader {
    client: async_nats::Client,
    waiters: Arc<Waiters>,
    /// Whether a replica may answer that does not know of everything yet.
    clustered: bool,
}

impl LogReader {
    /// Hands on what stands behind a sequence, until what is told follows on it without a gap; nothing where nobody reads any more.
    async fn replay(&self, after: u64, wanted: &Wanted, chunks: &mpsc::Sender<Events>) -> Option<Live> {
        // A replica tells how far it is only by what it has: without a filter, that is everything.
        let narrowed = wanted.namespace.as_ref().filter(|_| !self.clustered);
        let filter = narrowed.map_or_else(|| subjects::EVENTS.to_owned(), subjects::events_of);
        let mut after = after;
        loop {
            // What is stored from now on is told, so that reading up to here is enough.
            let (facts, head) = self.waiters.everything();
            loop {
                let piece = match replay::piece(&self.client, EVENTS, &filter, after, CHUNK.0).await {
                    Ok(piece) => piece,
                    Err(error) => {
                        debug!("a follower of the log reads again: {error}");
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                after = piece.messages.last().map_or(after, |last| last.sequence);
                let mut chunk = Events::default();
                for fact in piece.messages {
                    wanted.tell(&mut chunk, &fact.subject, fact.sequence, &fact.payload);
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
            sleep(BEHIND).await;
        }
    }
}

impl Wanted {
    /// Adds the fact, if it is wanted: the envelope as it is stored, with its sequence and what it is about.
    fn tell(&self, events: &mut Events, subject: &str, sequence: u64, payload: &[u8]) -> Option<()> {
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
        // Ours has no line breaks, and SSE could not carry them; between JSON's tokens they mean nothing.
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
        let wanted = |types: &[&str]| Wanted {
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
