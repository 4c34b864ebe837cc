//! All NATS subjects. No other module spells a subject.
//!
//! ```text
//! rgrid.evt.<ns>.job.<job>.ready.<queue>.<class>   events that make a job ready: submitted, released, rescheduled, requeued
//! rgrid.evt.<ns>.job.<job>.by.<actor>              every other event of a job
//! rgrid.evt.<ns>.batch.<batch>                     events of a batch
//! rgrid.evt.sys.worker.<worker>                    events of a worker
//! rgrid.evt.sys.runtimes                           events of the deployment's runtimes
//! rgrid.evt.sys.image.<name>                       events of an image that the grid stores; a `.` in the name is written as `=`
//! rgrid.fact.…                                     all of these again, after they are stored
//! rgrid.hb.<worker>                                the last heartbeat of a worker
//! rgrid.equipment.<worker>                         the inventory of a worker
//! rgrid.log.<ns>.<job>.<attempt>                   the output of an attempt, as frames
//! rgrid.submit.<ns>.<queue>                        submissions by any service
//! rgrid.refused.<ns>                               refused submissions, with the reason
//! rgrid.undeliverable.<stream>.<sequence>          messages that cannot be delivered, with the reason
//! rgrid.secret.<ns>.<name>                         a secret, sealed
//! rgrid.mark.<xx>                                  marks: contents of this shard (the first byte of the hash) that nothing refers to
//! rgrid.mark.lease                                 the lease of the storage pass
//! rgrid.mark.survey                                the result of the last survey of the store
//! ```

use crate::{
    envelope::Actor,
    grid::image::ImageName,
    ids::{Attempt, BatchId, JobId, Namespace, Queue, SessionId, Token, WorkerId},
    spec::Class,
};

/// All events.
pub const EVENTS: &str = "rgrid.evt.>";
/// The events of all jobs, in any namespace.
pub const JOB_EVENTS: &str = "rgrid.evt.*.job.>";
/// The events of all workers.
pub const WORKER_EVENTS: &str = "rgrid.evt.sys.worker.*";
/// The events of the deployment's runtimes.
pub const RUNTIMES: &str = "rgrid.evt.sys.runtimes";
/// The events of the deployment's runtimes, after they are stored.
pub const RUNTIMES_FACT: &str = "rgrid.fact.sys.runtimes";
/// The events of all images that the grid stores.
pub const IMAGES: &str = "rgrid.evt.sys.image.*";
/// All events, republished after they are stored. Followers subscribe to these.
pub const FACTS: &str = "rgrid.fact.>";
/// The heartbeats of all workers.
pub const BEATS: &str = "rgrid.hb.*";
/// All submissions.
pub const SUBMISSIONS: &str = "rgrid.submit.*.*";
/// All refusals.
pub const REFUSALS: &str = "rgrid.refused.*";
/// All messages that cannot be delivered.
pub const UNDELIVERABLE: &str = "rgrid.undeliverable.*.*";
/// Refusals whose namespace cannot be read.
pub const REFUSED_NOWHERE: &str = "rgrid.refused.sys";
/// The lease of the storage pass.
pub const COLLECTOR: &str = "rgrid.mark.lease";
/// The result of the last survey of the store.
pub const SURVEY: &str = "rgrid.mark.survey";
/// The prefix of a watcher's token. Watchers send heartbeats as workers do.
const WATCHER: &str = "watcher_";
/// The prefix of events. `rgrid.fact` is the prefix of republished events.
const EVENT_PREFIX: &str = "rgrid.evt.";
const FACT_PREFIX: &str = "rgrid.fact.";
/// The prefix of the subjects on which workers publish their inventory.
const EQUIPMENT_PREFIX: &str = "rgrid.equipment.";
/// The token that events of the grid itself have in place of a namespace.
const SYSTEM: &str = "sys";

/// All events of a namespace.
#[must_use]
pub fn events_of(namespace: &Namespace) -> String {
    format!("{EVENT_PREFIX}{namespace}.>")
}

/// The subject of events that make a job ready.
#[must_use]
pub fn job_ready(namespace: &Namespace, job: JobId, queue: &Queue, class: Class) -> String {
    format!("rgrid.evt.{namespace}.job.{job}.ready.{queue}.{class}")
}

/// The subject of every other event of a job.
#[must_use]
pub fn job_by(namespace: &Namespace, job: JobId, actor: &Actor) -> String {
    format!("rgrid.evt.{namespace}.job.{job}.by.{actor}")
}

/// All events of a job. Every writer of a job's events names its expected sequence over this filter.
#[must_use]
pub fn job_filter(namespace: &Namespace, job: JobId) -> String {
    format!("rgrid.evt.{namespace}.job.{job}.>")
}

/// All events of a job whose namespace is not known.
#[must_use]
pub fn job_filter_anywhere(job: JobId) -> String {
    format!("rgrid.evt.*.job.{job}.>")
}

/// The subject of a batch's events. Every writer of a batch's events names its expected sequence over this subject.
#[must_use]
pub fn batch(namespace: &Namespace, batch: BatchId) -> String {
    format!("rgrid.evt.{namespace}.batch.{batch}")
}

/// The events of a batch whose namespace is not known.
#[must_use]
pub fn batch_anywhere(batch: BatchId) -> String {
    format!("rgrid.evt.*.batch.{batch}")
}

/// The ready events of one class in a queue, in every namespace: a work queue.
#[must_use]
pub fn work(queue: &Queue, class: Class) -> String {
    format!("rgrid.evt.*.job.*.ready.{queue}.{class}")
}

/// The subject of a worker's events.
#[must_use]
pub fn worker(worker: &WorkerId) -> String {
    format!("rgrid.evt.sys.worker.{worker}")
}

/// The subject of the events of an image that the grid stores.
#[must_use]
pub fn image(name: &ImageName) -> String {
    format!("rgrid.evt.sys.image.{}", name.token())
}

/// A worker's events, republished after they are stored.
#[must_use]
pub fn worker_facts(worker: &WorkerId) -> String {
    format!("rgrid.fact.sys.worker.{worker}")
}

/// The job events of this actor, republished after they are stored.
#[must_use]
pub fn facts_by(actor: &Actor) -> String {
    format!("rgrid.fact.*.job.*.by.{actor}")
}

/// A job's events, republished after they are stored.
#[must_use]
pub fn job_facts(namespace: &Namespace, job: JobId) -> String {
    format!("rgrid.fact.{namespace}.job.{job}.>")
}

/// The subject of a worker's heartbeats.
#[must_use]
pub fn beat(worker: &WorkerId) -> String {
    format!("rgrid.hb.{worker}")
}

/// The subject of a watcher's own heartbeats. With them, the watcher distinguishes a silent worker from a silent broker.
#[must_use]
pub fn watcher_beat(watcher: SessionId) -> String {
    format!("rgrid.hb.{WATCHER}{}", watcher.uuid().simple())
}

/// Whether the sender of heartbeats under this token is a watcher and not a worker.
#[must_use]
pub fn is_watcher(token: &str) -> bool {
    token.starts_with(WATCHER)
}

/// The subject on which a worker publishes its inventory.
#[must_use]
pub fn equipment(worker: &WorkerId) -> String {
    format!("{EQUIPMENT_PREFIX}{worker}")
}

/// The worker that publishes its inventory on this subject.
#[must_use]
pub fn parse_equipment(subject: &str) -> Option<WorkerId> {
    subject.strip_prefix(EQUIPMENT_PREFIX)?.parse().ok()
}

/// The token of the sender of heartbeats on this subject.
#[must_use]
pub fn parse_beat(subject: &str) -> Option<&str> {
    subject.strip_prefix("rgrid.hb.")
}

/// The subject of an attempt's output.
#[must_use]
pub fn log(namespace: &Namespace, job: JobId, attempt: Attempt) -> String {
    format!("rgrid.log.{namespace}.{job}.{attempt}")
}

/// The subject to which a service submits.
#[must_use]
pub fn submit(namespace: &Namespace, queue: &Queue) -> String {
    format!("rgrid.submit.{namespace}.{queue}")
}

/// The namespace and queue of a submission's subject.
#[must_use]
pub fn parse_submit(subject: &str) -> Option<(Namespace, Queue)> {
    let (namespace, queue) = subject.strip_prefix("rgrid.submit.")?.split_once('.')?;
    Some((namespace.parse().ok()?, queue.parse().ok()?))
}

/// The subject of a namespace's secret with this name, or of all its secrets.
#[must_use]
pub fn secret(namespace: &Namespace, name: Option<&Token>) -> String {
    format!("rgrid.secret.{namespace}.{}", name.map_or("*", Token::as_str))
}

/// The name of the secret on this subject.
#[must_use]
pub fn parse_secret(subject: &str) -> Option<Token> {
    let (_, name) = subject.strip_prefix("rgrid.secret.")?.split_once('.')?;
    name.parse().ok()
}

/// The subject of the marks of one shard of contents.
#[must_use]
pub fn marks(shard: u8) -> String {
    format!("rgrid.mark.{shard:02x}")
}

/// The subject of a namespace's refusals.
#[must_use]
pub fn refused(namespace: &Namespace) -> String {
    format!("rgrid.refused.{namespace}")
}

/// The subject that records a message that cannot be delivered: the one at this sequence of a stream.
#[must_use]
pub fn undeliverable(stream: &str, sequence: u64) -> String {
    format!("rgrid.undeliverable.{stream}.{sequence}")
}

/// A parsed subject of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventSubject {
    /// An event of a job.
    Job {
        /// The job's namespace.
        namespace: Namespace,
        /// The job.
        job: JobId,
        /// The actor that published the event; `None` on a ready subject.
        publisher: Option<Actor>,
    },
    /// An event of a batch.
    Batch {
        /// The batch's namespace.
        namespace: Namespace,
        /// The batch.
        batch: BatchId,
    },
    /// An event of a worker.
    Worker(WorkerId),
    /// An event of the deployment's runtimes.
    Runtimes,
    /// An event of an image that the grid stores.
    Image(ImageName),
}

impl EventSubject {
    /// Parses the subject of an event, or of a republished event. `None` for any other subject, and for a kind of event that this program
    /// does not know.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix(EVENT_PREFIX).or_else(|| subject.strip_prefix(FACT_PREFIX))?;
        let mut tokens = rest.split('.');
        let namespace = tokens.next()?;
        match tokens.next()? {
            "worker" if namespace == SYSTEM => Some(Self::Worker(tokens.next()?.parse().ok()?)),
            "runtimes" if namespace == SYSTEM => Some(Self::Runtimes),
            "image" if namespace == SYSTEM => Some(Self::Image(ImageName::of_token(tokens.next()?)?)),
            "batch" => Some(Self::Batch {
                namespace: namespace.parse().ok()?,
                batch: tokens.next()?.parse().ok()?,
            }),
            "job" => {
                let job = tokens.next()?.parse().ok()?;
                let publisher = match tokens.next()? {
                    "ready" => None,
                    "by" => Some(tokens.next()?.parse().ok()?),
                    _ => return None,
                };
                Some(Self::Job {
                    namespace: namespace.parse().ok()?,
                    job,
                    publisher,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::default_token;

    #[test]
    fn every_subject_is_parsed_into_what_it_was_made_of() {
        let (namespace, job) = (default_token(), JobId::new());
        let ready = job_ready(&namespace, job, &default_token(), Class::ALL[0]);
        let by = job_by(&namespace, job, &Actor::Watcher).replace("rgrid.evt.", "rgrid.fact.");
        let parsed = |publisher| {
            Some(EventSubject::Job {
                namespace: namespace.clone(),
                job,
                publisher,
            })
        };
        assert_eq!(EventSubject::parse(&ready), parsed(None));
        assert_eq!(EventSubject::parse(&by), parsed(Some(Actor::Watcher)));
        assert_eq!(
            EventSubject::parse(&worker(&namespace)),
            Some(EventSubject::Worker(namespace.clone()))
        );
        assert_eq!(EventSubject::parse(RUNTIMES_FACT), Some(EventSubject::Runtimes));
        let name: ImageName = "lab.example:5000/py:3.11".parse().expect("a name");
        assert_eq!(EventSubject::parse(&image(&name)), Some(EventSubject::Image(name)));
        let id = BatchId::new();
        let of_batch = EventSubject::Batch {
            namespace: namespace.clone(),
            batch: id,
        };
        assert_eq!(EventSubject::parse(&batch(&namespace, id)), Some(of_batch));
        assert_eq!(parse_equipment(&equipment(&namespace)), Some(namespace.clone()));
        assert_eq!(parse_submit(&submit(&namespace, &namespace)), Some((namespace.clone(), namespace)));
    }

    #[test]
    fn a_watcher_sends_heartbeats_and_is_distinguished_from_workers() {
        let subject = watcher_beat(SessionId::new());
        let token = parse_beat(&subject).expect("a beat");
        assert!(is_watcher(token) && token.parse::<WorkerId>().is_ok(), "{token}");
        assert!(!is_watcher("worker-1"));
    }

    #[test]
    fn an_unknown_subject_is_not_parsed() {
        assert_eq!(parse_equipment("rgrid.equipment.a.b"), None);
        for subject in [
            "rgrid.evt.x.job.not-an-id.by.api",
            "rgrid.evt.x.worker.w",
            "rgrid.hb.w",
            "rgrid.evt.x.batch.b",
            "",
            "rgrid.evt.",
        ] {
            assert_eq!(EventSubject::parse(subject), None, "{subject}");
        }
    }
}
