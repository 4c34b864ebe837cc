//! How a session ends.

use bus::ids::SessionId;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The runner was told to stop; attempts that were given their time may still be running.
    Stopped,
    /// The runner was told to restart.
    Restarting,
    /// An operator drains the worker, and the time for that is over.
    Drained,
    /// No heartbeat was acknowledged for as long as the runner may execute without.
    Unheard,
    /// It was to go on with what the last runner left, and was given up before that.
    Late,
    /// The watcher declared it lost; its attempts belong to others now.
    Lost,
    /// Another runner serves the worker.
    Replaced(SessionId),
    /// The broker lost the consumers, or the connection.
    Broken(String),
}
