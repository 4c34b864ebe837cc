//! The grid's language and its log: what is said (events), what follows from it (`decide`, `evolve`), and how it is stored in and read
//! from `JetStream` streams.

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
