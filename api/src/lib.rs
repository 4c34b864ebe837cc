//! The way in and the way to look: HTTP and SSE over the log and the tables, and the intake of submissions on NATS.
//!
//! Submitting, single jobs, cancelling, logs, files and history need NATS alone; only lists need Postgres.

mod advice;
mod app;
mod arrivals;
mod artifacts;
mod auth;
mod batches;
pub mod compression;
mod connections;
mod content;
mod direct;
mod doctor;
pub mod error;
mod event_log;
mod extract;
mod facts;
mod fill;
mod grid;
mod images;
mod intake;
mod jobs;
mod logs;
mod produce;
mod progress;
mod queries;
mod router;
pub mod runtimes;
mod secrets;
mod serve;
mod service;
mod sse;
mod storage;
mod uploads;
pub mod view;
mod waiters;
mod watch;
mod workers;

pub use connections::Limits;
pub use service::{Bound, Config, Error, bind, run};
pub use storage::{Keeping, Storing};
