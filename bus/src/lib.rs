//! The grid's language and its log: what is said (events), what follows from it (`decide`, `evolve`), and how it is
//! stored and read (`JetStream` streams, files by content).

pub mod batch;
pub mod dependencies;
pub mod envelope;
pub mod files;
pub mod frame;
pub mod ids;
pub mod image;
pub mod job;
pub mod manifest;
pub mod outputs;
pub mod pep440;
pub mod policy;
pub mod reuse;
pub mod runtime;
pub mod runtimes;
pub mod secrets;
pub mod spec;
pub mod stream;
pub mod subjects;
pub mod submission;
pub mod tree;
pub mod worker;
