//! The agent of one worker: takes work, executes it, commits what came of it.

pub mod executor;
