//! The log on NATS JetStream: connecting, setting up streams, appending, reading, following and pulling.

pub mod aggregates;
pub mod append;
mod ask;
pub mod atomic;
pub mod completeness;
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
pub mod work;
pub mod writer;

/// The stream of all events: the log itself.
pub const EVENTS: &str = "RGRID_EVENTS";
/// The stream of the last heartbeat of each worker.
pub const PRESENCE: &str = "RGRID_PRESENCE";
/// The stream of the last inventory of each worker.
pub const EQUIPMENT: &str = "RGRID_EQUIPMENT";
/// The stream of the heartbeats of the last day.
pub const HEARTBEATS: &str = "RGRID_HEARTBEATS";
/// The stream of the output of attempts.
pub const LOGS: &str = "RGRID_LOGS";
/// The stream of submissions that intake has not processed yet.
pub const INBOX: &str = "RGRID_INBOX";
/// The stream of refused submissions.
pub const REFUSED: &str = "RGRID_REFUSED";
/// The stream of messages that cannot be delivered.
pub const UNDELIVERABLE: &str = "RGRID_UNDELIVERABLE";
/// The stream of sealed secrets.
pub const SECRETS: &str = "RGRID_SECRETS";
/// The stream of the marks on contents that nothing refers to.
pub const MARKS: &str = "RGRID_MARKS";

/// The header with the sequence that a writer expects to be the last one. It also links a stored event to the event before it.
pub(crate) const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// The header with the subjects for which that sequence is expected to be the last. (async-nats 0.51 has no constant for it.)
pub(crate) const EXPECTED_FILTER: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
