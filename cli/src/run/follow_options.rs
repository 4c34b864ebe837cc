//! How a job is followed.

/// How a job is followed.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(crate) struct FollowOptions {
    /// Do not download the outputs.
    pub(crate) no_download: bool,
    /// Keep local files that the job removed.
    pub(crate) keep_deleted: bool,
    /// Print the job as one JSON object on standard output.
    pub(crate) json: bool,
    /// Report the worker and the saved outputs.
    pub(crate) verbose: bool,
}
