//! Real servers for the tests, on free loopback ports, each ended with its handle.

#![allow(clippy::disallowed_methods, reason = "tests also append events that no service would append")]

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
