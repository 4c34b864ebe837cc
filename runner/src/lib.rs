//! The runner: the process that serves one worker. It claims jobs, executes them and commits their results.
//!
//! Dependencies run one way: `run` (sessions, one after the other) uses `session` (the loop that asks for work), which uses `restart`
//! (attempts that continue in the next runner), which uses `attempt` (one try at a job), which uses `log`, `packages` and `executor`.

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
