//! The API: HTTP and server-sent events over the log and the tables, and the intake of submissions over NATS.
//!
//! Only lists need Postgres. Submissions, single jobs, cancellation, logs, files and histories need only NATS.

mod admission;
mod app;
mod auth;
mod batches;
mod doctor;
mod error;
mod events;
mod files;
mod http;
mod images;
mod intake;
mod jobs;
mod key;
mod logs;
mod queries;
mod router;
pub mod runtimes;
mod secrets;
mod service;
mod storage;
mod workers;

pub use self::http::connections::Limits;
pub use service::{Bound, Config, Error, bind, run};
pub use storage::{Retention, StorageConfig};
