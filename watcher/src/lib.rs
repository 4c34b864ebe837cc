//! The watcher: notices what did not happen (a heartbeat, a deadline, the end of another job), and appends an event for it.
//!
//! The path of an event through this crate: `feed` reads it and `observation` decodes what the watcher needs of it; `state`,
//! with `timers` and `windows`, folds it; [`plan()`] (pure) says which commands follow from the state and the time;
//! `schedule` orders them; `carry_out` decides each command once more on the log and appends its event. `watch` is the loop
//! around all of them.
//!
//! The state holds only what can be folded from the log again, and every command may be carried out twice. Several watchers may run:
//! each event is appended behind the event that it was decided on, so the log rejects the later of two.

mod advisory;
mod canary;
mod carry_out;
mod config;
mod connect;
mod connections;
mod error;
mod feed;
mod observation;
mod plan;
mod run;
mod schedule;
mod snapshot;
mod snapshotter;
mod state;
mod timers;
mod unattended;
mod watch;
mod windows;

pub use self::{
    config::{Config, SnapshotConfig},
    connections::Connection,
    error::Error,
    observation::{Ending, HeldAttempt, Observation, WaitingJob, observe},
    plan::{Command, Sign, plan},
    run::run,
    state::State,
};
