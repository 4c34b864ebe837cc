//! The agent of one worker: takes work, executes it, commits what came of it.

pub mod attempt;
mod beneath;
mod config;
mod errors;
pub mod executor;
mod executors;
mod input_cache;
pub mod inputs;
mod log;
mod packages;
mod patience;
mod restart;
mod run;
pub mod secrets;
mod session;
mod spread;
pub mod users;

pub use config::Config;
pub use run::{Error, run};
