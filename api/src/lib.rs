//! The way in and the way to look: HTTP and SSE over the log and the tables, and the intake of submissions on NATS.
//!
//! Submitting, single jobs, cancelling, logs, files and history need NATS alone; only lists need Postgres.

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
pub use storage::{Keeping, Storing};
