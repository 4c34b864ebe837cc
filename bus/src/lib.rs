//! The grid's events and its log: the events of jobs, batches, workers and the grid, the pure functions that make them and fold them
//! (`decide`, `evolve`), and how the events are stored in `JetStream` streams and read back.
//!
//! A job's path through this crate: [`spec::submission`] checks what a client submits, [`job`] decides each event of its life, [`log`]
//! appends the events on the subjects of [`subjects`] and reads them again.

pub mod batch;
pub mod envelope;
pub mod grid;
pub mod ids;
pub mod job;
pub mod log;
pub mod output;
pub mod spec;
pub mod subjects;
pub mod worker;
