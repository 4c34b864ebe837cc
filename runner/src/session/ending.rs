//! How a session ends.

use bus::ids::SessionId;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The runner was asked to stop. Attempts whose time is over may still be running.
    Stopped,
    /// The runner was asked to restart.
    Restarting,
    /// An operator drains the worker, and the drain's deadline has passed.
    Drained,
    /// No heartbeat was acknowledged within the limit of `--self-fence`.
    Unacknowledged,
    /// The watcher gave the last runner's session up before this runner could resume it.
    GivenUp,
    /// The watcher declared the session lost; its attempts are rescheduled.
    Lost,
    /// Another runner serves the worker.
    Replaced(SessionId),
    /// The broker lost the consumers, or the connection.
    Broken(String),
}
