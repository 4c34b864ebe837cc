//! The one place that spells subjects.
//!
//! ```text
//! rgrid.evt.<ns>.job.<job>.ready.<queue>.<class>   events that make a job ready: submitted, released, rescheduled, requeued
//! rgrid.evt.<ns>.job.<job>.by.<actor>              every other event of a job
//! rgrid.evt.<ns>.batch.<batch>                     events of a batch
//! rgrid.evt.sys.worker.<worker>                    events of a worker
//! rgrid.evt.sys.runtimes                           which runtimes the deployment has
//! rgrid.evt.sys.image.<name>                       events of an image that the grid keeps; a `.` of its name is a `=`
//! rgrid.fact.…                                     all of these again, once they are stored
//! rgrid.hb.<worker>                                a worker's last beat
//! rgrid.equipment.<worker>                         what a worker has to run scripts by
//! rgrid.log.<ns>.<job>.<attempt>                   what an attempt prints, as frames
//! rgrid.submit.<ns>.<queue>                        submissions by any service
//! rgrid.refused.<ns>                               what was not accepted, and why
//! rgrid.undeliverable.<stream>.<sequence>          what could not be delivered to anybody, and why
//! rgrid.secret.<ns>.<name>                         a secret, sealed
//! rgrid.mark.<xx>                                  which contents, of those whose hashes begin so, nothing refers to
//! rgrid.mark.lease                                 who collects them
//! rgrid.mark.survey                                what was found when the store was looked at last
//! ```

use crate::{
    envelope::Actor,
    grid::image::ImageName,
    ids::{Attempt, BatchId, JobId, Namespace, Queue, SessionId, Token, WorkerId},
    spec::Class,
};

/// Every event.
pub const EVENTS: &str = "rgrid.evt.>";
/// Every job's events, in any namespace.
pub const JOB_EVENTS: &str = "rgrid.evt.*.job.>";
/// Every worker's events.
pub const WORKER_EVENTS: &str = "rgrid.evt.sys.worker.*";
/// Which runtimes the deployment has.
pub const RUNTIMES: &str = "rgrid.evt.sys.runtimes";
/// The same, once it is stored.
pub const RUNTIMES_FACT: &str = "rgrid.fact.sys.runtimes";
/// The events of every image that the grid keeps.
pub const IMAGES: &str = "rgrid.evt.sys.image.*";
/// Every stored event, again: what followers subscribe to.
pub const FACTS: &str = "rgrid.fact.>";
/// Every worker's beats.
pub const BEATS: &str = "rgrid.hb.*";
/// Every submission.
pub const SUBMISSIONS: &str = "rgrid.submit.*.*";
/// Every refusal.
pub const REFUSALS: &str = "rgrid.refused.*";
/// Everything that could not be delivered.
pub const UNDELIVERABLE: &str = "rgrid.undeliverable.*.*";
/// Where refusals are recorded whose namespace cannot be read.
pub const REFUSED_NOWHERE: &str = "rgrid.refused.sys";
/// Where it stands who collects what is no longer used.
pub const COLLECTOR: &str = "rgrid.mark.lease";
/// Where it stands what was found when the store was looked at last.
pub const SURVEY: &str = "rgrid.mark.survey";
/// What the token of a watcher begins with, which beats as workers do.
const WATCHER: &str = "watcher_";
/// What stored events' subjects begin with; `rgrid.fact` is what their republished ones begin with.
const EVENT_PREFIX: &str = "rgrid.evt.";
const FACT_PREFIX: &str = "rgrid.fact.";
/// What the subjects begin with on which workers say what they have.
const EQUIPMENT_PREFIX: &str = "rgrid.equipment.";
/// Stands where a namespace does, for events of the grid itself.
const SYSTEM: &str = "sys";

/// Every event of a namespace.
#[must_use]
pub fn events_of(namespace: &Namespace) -> String {
    format!("{EVENT_PREFIX}{namespace}.>")
}

/// Where the events that make a job runnable are published.
#[must_use]
pub fn job_ready(namespace: &Namespace, job: JobId, queue: &Queue, class: Class) -> String {
    format!("rgrid.evt.{namespace}.job.{job}.ready.{queue}.{class}")
}

/// Where every other event of a job is published.
#[must_use]
pub fn job_by(namespace: &Namespace, job: JobId, actor: &Actor) -> String {
    format!("rgrid.evt.{namespace}.job.{job}.by.{actor}")
}

/// All events of a job; every writer of a job names its expected sequence over this filter.
#[must_use]
pub fn job_filter(namespace: &Namespace, job: JobId) -> String {
    format!("rgrid.evt.{namespace}.job.{job}.>")
}

/// All events of a job whose namespace is not known.
#[must_use]
pub fn job_filter_anywhere(job: JobId) -> String {
    format!("rgrid.evt.*.job.{job}.>")
}

/// A batch's events; every writer of a batch names its expected sequence over this subject.
#[must_use]
pub fn batch(namespace: &Namespace, batch: BatchId) -> String {
    format!("rgrid.evt.{namespace}.batch.{batch}")
}

/// The events of a batch whose namespace is not known.
#[must_use]
pub fn batch_anywhere(batch: BatchId) -> String {
    format!("rgrid.evt.*.batch.{batch}")
}

/// The work of one class in a queue, in every namespace.
#[must_use]
pub fn work(queue: &Queue, class: Class) -> String {
    format!("rgrid.evt.*.job.*.ready.{queue}.{class}")
}

/// A worker's events.
#[must_use]
pub fn worker(worker: &WorkerId) -> String {
    format!("rgrid.evt.sys.worker.{worker}")
}

/// The events of an image that the grid keeps.
#[must_use]
pub fn image(name: &ImageName) -> String {
    format!("rgrid.evt.sys.image.{}", name.token())
}

/// A worker's stored events, again.
#[must_use]
pub fn worker_facts(worker: &WorkerId) -> String {
    format!("rgrid.fact.sys.worker.{worker}")
}

/// Every job's stored events that this actor said, again.
#[must_use]
pub fn facts_by(actor: &Actor) -> String {
    format!("rgrid.fact.*.job.*.by.{actor}")
}

/// A job's stored events, again.
#[must_use]
pub fn job_facts(namespace: &Namespace, job: JobId) -> String {
    format!("rgrid.fact.{namespace}.job.{job}.>")
}

/// A worker's beats.
#[must_use]
pub fn beat(worker: &WorkerId) -> String {
    format!("rgrid.hb.{worker}")
}

/// A watcher's own beats, by which it tells the silence of a worker from that of the broker.
#[must_use]
pub fn watcher_beat(watcher: SessionId) -> String {
    format!("rgrid.hb.{WATCHER}{}", watcher.uuid().simple())
}

/// Whether whoever beats under this token is a watcher, and no worker.
#[must_use]
pub fn is_watcher(token: &str) -> bool {
    token.starts_with(WATCHER)
}

/// Where a worker says what it has to run scripts by.
#[must_use]
pub fn equipment(worker: &WorkerId) -> String {
    format!("{EQUIPMENT_PREFIX}{worker}")
}

/// The worker that says what it has on this subject.
#[must_use]
pub fn parse_equipment(subject: &str) -> Option<WorkerId> {
    subject.strip_prefix(EQUIPMENT_PREFIX)?.parse().ok()
}

/// The token of whoever beats on this subject.
#[must_use]
pub fn parse_beat(subject: &str) -> Option<&str> {
    subject.strip_prefix("rgrid.hb.")
}

/// What an attempt prints.
#[must_use]
pub fn log(namespace: &Namespace, job: JobId, attempt: Attempt) -> String {
    format!("rgrid.log.{namespace}.{job}.{attempt}")
}

/// Where a service submits to.
#[must_use]
pub fn submit(namespace: &Namespace, queue: &Queue) -> String {
    format!("rgrid.submit.{namespace}.{queue}")
}

/// The namespace and queue that a submission names.
#[must_use]
pub fn parse_submit(subject: &str) -> Option<(Namespace, Queue)> {
    let (namespace, queue) = subject.strip_prefix("rgrid.submit.")?.split_once('.')?;
    Some((namespace.parse().ok()?, queue.parse().ok()?))
}

/// A namespace's secret of this name, or all of them with `*`.
#[must_use]
pub fn secret(namespace: &Namespace, name: Option<&Token>) -> String {
    format!("rgrid.secret.{namespace}.{}", name.map_or("*", Token::as_str))
}

/// The name of the secret that is kept under a subject.
#[must_use]
pub fn parse_secret(subject: &str) -> Option<Token> {
    let (_, name) = subject.strip_prefix("rgrid.secret.")?.split_once('.')?;
    name.parse().ok()
}

/// Where the marks of one shard of contents stand.
#[must_use]
pub fn marks(shard: u8) -> String {
    format!("rgrid.mark.{shard:02x}")
}

/// Where refusals are recorded.
#[must_use]
pub fn refused(namespace: &Namespace) -> String {
    format!("rgrid.refused.{namespace}")
}

/// Where it is kept that the message at this sequence of a stream could not be delivered.
#[must_use]
pub fn undeliverable(stream: &str, sequence: u64) -> String {
    format!("rgrid.undeliverable.{stream}.{sequence}")
}

/// What a stored event's subject says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventSubject {
    /// An event of a job.
    Job {
        /// Whose job.
        namespace: Namespace,
        /// Which job.
        job: JobId,
        /// Who speaks; nothing on a ready subject.
        speaker: Option<Actor>,
    },
    /// An event of a batch.
    Batch {
        /// Whose batch.
        namespace: Namespace,
        /// Which batch.
        batch: BatchId,
    },
    /// An event of a worker.
    Worker(WorkerId),
    /// What the deployment's runtimes are.
    Runtimes,
    /// An event of an image that the grid keeps.
    Image(ImageName),
}

impl EventSubject {
    /// Reads the subject of an event or of a fact; nothing for a subject of neither, or of a kind that this program does not know.
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
                let speaker = match tokens.next()? {
                    "ready" => None,
                    "by" => Some(tokens.next()?.parse().ok()?),
                    _ => return None,
                };
                Some(Self::Job {
                    namespace: namespace.parse().ok()?,
                    job,
                    speaker,
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
    fn what_is_spelled_here_is_read_here() {
        let (namespace, job) = (default_token(), JobId::new());
        let ready = job_ready(&namespace, job, &default_token(), Class::ALL[0]);
        let by = job_by(&namespace, job, &Actor::Watcher).replace("rgrid.evt.", "rgrid.fact.");
        let parsed = |speaker| {
            Some(EventSubject::Job {
                namespace: namespace.clone(),
                job,
                speaker,
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
    fn a_watcher_beats_as_workers_do_and_is_told_from_them() {
        let subject = watcher_beat(SessionId::new());
        let token = parse_beat(&subject).expect("a beat");
        assert!(is_watcher(token) && token.parse::<WorkerId>().is_ok(), "{token}");
        assert!(!is_watcher("worker-1"));
    }

    #[test]
    fn a_foreign_subject_is_nothing_and_not_a_guess() {
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
