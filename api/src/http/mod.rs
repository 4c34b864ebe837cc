//! HTTP: connections, request parsing, streamed answers.

pub(crate) mod connections;
pub(crate) mod extract;
pub(crate) mod progress;
pub(crate) mod serve;
pub(crate) mod sse;
pub(crate) mod stream_task;
