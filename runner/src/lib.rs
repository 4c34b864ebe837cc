//! The agent of one worker: takes work, executes it, commits what came of it.

pub mod attempt;
mod beneath;
mod config;
pub mod executor;
mod executors;
mod input_cache;
mod log;
mod packages;
mod patience;
mod restart;
mod run;
mod scribe;
mod session;
mod shutdown;
pub mod users;

pub use config::Config;
pub use run::{Error, run};
