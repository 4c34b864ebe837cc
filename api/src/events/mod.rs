//! The log of events over HTTP: followed, measured, bounded.

pub(crate) mod follow;
pub(crate) mod usage;
pub(crate) mod waiters;
