//! The way in and the way to look: HTTP and SSE over the log and the tables, and the intake of submissions on NATS.

pub mod error;
pub mod view;
