//! The log on `JetStream`: connected to, set up, appended to, read back, followed, and pulled from.

pub mod aggregates;
pub mod append;
mod ask;
pub mod atomic;
pub mod connect;
pub mod follow;
pub mod inspect;
pub mod puller;
pub mod read;
pub mod relay;
pub mod replay;
pub mod room;
pub mod secrets;
pub mod setup;
mod stored;
pub mod sys;
pub mod usage;
pub mod whole;
pub mod work;
pub mod writer;

/// The stream of all events.
pub const EVENTS: &str = "RGRID_EVENTS";
/// The stream of each worker's last beat.
pub const PRESENCE: &str = "RGRID_PRESENCE";
/// The stream of what each worker has to run scripts by, as it said last.
pub const EQUIPMENT: &str = "RGRID_EQUIPMENT";
/// The stream of the heartbeats of the last day.
pub const HEARTBEATS: &str = "RGRID_HEARTBEATS";
/// The stream of what attempts print.
pub const LOGS: &str = "RGRID_LOGS";
/// The stream of submissions that are not taken yet.
pub const INBOX: &str = "RGRID_INBOX";
/// The stream of what was not accepted.
pub const REFUSED: &str = "RGRID_REFUSED";
/// The stream of what could not be delivered to anybody.
pub const UNDELIVERABLE: &str = "RGRID_UNDELIVERABLE";
/// The stream of sealed secrets.
pub const SECRETS: &str = "RGRID_SECRETS";
/// The stream of the marks on contents that nothing refers to.
pub const MARKS: &str = "RGRID_MARKS";

/// The header that carries the sequence which a writer expects to be the job's last one, and that links a stored event to
/// the one before it.
pub(crate) const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// The header that says over which subjects that sequence is the last. (async-nats 0.51 has no constant for it.)
pub(crate) const EXPECTED_FILTER: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
