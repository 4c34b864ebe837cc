//! Real servers for the tests, on free loopback ports, each ended with its handle.

pub mod chaos;
pub mod cluster;
pub mod grid;
pub mod minio;
#[cfg(test)]
mod model;
pub mod nats;
pub mod poison;
pub mod postgres;
pub mod process;
pub mod wire;
pub mod writer;
