//! The process manager: notices what did not happen, and says so as an event.
//!
//! [`plan()`] is pure: from a [`State`] and the time it says what should be done. [`run()`] folds the log and the
//! heartbeats into the state, and carries the plan out. Nothing is remembered that the log does not tell again, every
//! step is safe to take twice, and the log arbitrates between watchers: each event is appended behind the one it was
//! decided on.

mod advisory;
mod canary;
mod carry_out;
mod config;
mod connect;
mod connections;
mod error;
mod feed;
mod keeper;
mod plan;
mod run;
mod schedule;
mod seen;
mod snapshot;
mod state;
mod timers;
mod watch;
mod watchdog;
mod windows;

pub use self::{
    config::{Config, SnapshotConfig},
    connections::Connection,
    error::Error,
    plan::{Command, Sign, plan},
    run::run,
    seen::{Ending, Seen, Try, Waits, read},
    state::State,
};
