//! Contents of files over HTTP: uploads, downloads, the outputs of jobs.

pub(crate) mod arrivals;
pub(crate) mod artifacts;
pub(crate) mod content;
pub(crate) mod direct;
pub(crate) mod uploads;
