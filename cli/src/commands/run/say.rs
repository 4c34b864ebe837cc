//! What `rgrid run` itself says: on standard error, in one line each.

use bus::ids::JobId;

use crate::client::Error;

/// The connection is lost, and will be tried again.
pub(crate) fn connection_lost(error: &Error) {
    eprintln!("rgrid: {error} Trying again; the job goes on meanwhile.");
}

/// A part of the log is not there any more.
pub(crate) fn gap(job: JobId, bytes: u64) {
    eprintln!("rgrid: {bytes} bytes of the log are gone until the job has ended; then `rgrid logs {job}` has all of it");
}

/// What the user should know of a job that waits.
pub(super) fn warning(warning: &str) {
    eprintln!("rgrid: {warning}");
}

/// The job goes on without us.
pub(super) fn detached(job: JobId) {
    eprintln!("rgrid: job {job} goes on; `rgrid logs -f {job}` follows it, `rgrid cancel {job}` ends it");
}
