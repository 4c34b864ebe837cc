//! The process manager: notices what did not happen, and says so as an event.
//!
//! [`plan()`] is pure: from a [`State`] and the time it says what should be done. [`run()`] folds the log and the
//! heartbeats into the state, and carries the plan out. Nothing is remembered that the log does not tell again, every
//! step is safe to take twice, and the log arbitrates between watchers: each event is appended behind the one it was
//! decided on.

mod act;
mod advisory;
mod canary;
mod config;
mod connect;
mod connections;
mod feed;
mod keeper;
mod lanes;
mod plan;
mod run;
mod seen;
mod snapshot;
mod state;
mod timers;
mod watch;
mod watchdog;
mod window;
mod windows;

pub use self::{
    config::{Config, SnapshotConfig},
    connect::Error,
    connections::Connection,
    plan::{Command, Sign, plan},
    run::run,
    seen::{Ending, Seen, Try, Waits, read},
    state::State,
};
