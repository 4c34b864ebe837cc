//! Directory trees that jobs made: looked through and removed by file descriptors, without following a link and without leaving the
//! mount that they begin on. A job may have mounted its user's data there, or nested directories by the ten thousand.

mod clear;
mod mounts;
mod open;
mod remove;
mod stop;
mod walk;

pub(crate) use clear::clear;
pub(crate) use mounts::nothing_mounted;
pub(crate) use open::{directory, file};
#[cfg(test)]
pub(crate) use remove::tests::Mounted;
pub(crate) use remove::{Error, remove};
pub(crate) use stop::{Stop, StopGuard};
pub(crate) use walk::{Seen, Walk};
