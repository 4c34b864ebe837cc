//! How a job is followed.

/// How a job is shown while it runs and when it has ended.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(crate) struct FollowOptions {
    /// Its outputs stay in the store.
    pub(crate) no_download: bool,
    /// What it removed of its inputs stays here.
    pub(crate) keep_deleted: bool,
    /// As one JSON object on standard output.
    pub(crate) json: bool,
    /// With where it runs, and what came back.
    pub(crate) verbose: bool,
}
