//! The file store: each content is stored once, under its SHA-256, and verified when it is written and read.
//!
//! [`Files`] uses any [`object_store::ObjectStore`], chosen by URL ([`StoreUrl`]): a bucket in `JetStream` ([`nats`]), S3 or `MinIO`, or a
//! directory.

pub mod compression;
mod error;
mod extents;
mod files;
mod get;
mod hold;
mod incoming;
mod key;
pub mod marks;
pub mod nats;
mod open;
mod packages;
pub mod presign;
mod put;
mod remove;
mod upload;
mod url;
mod verify;

pub use self::{
    error::Error,
    extents::Holes,
    files::Files,
    incoming::Incoming,
    packages::{PACKAGES, PackagesEntry, RENEW_AFTER},
    remove::{Entry, Removed},
    url::{InvalidUrl, StoreUrl},
};

/// The largest window of a zstd decompressor, as a power of two in bytes: 8 MiB, the most that HTTP allows (RFC 9659). What rgrid compresses
/// needs 2 MiB at most.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
