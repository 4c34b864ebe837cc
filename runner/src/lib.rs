//! The agent of one worker: takes work, executes it, commits what came of it.

mod attempt;
mod clock;
mod command;
mod config;
mod dispatcher;
mod equip;
pub mod executor;
mod facts;
mod fence;
mod handover;
pub mod inputs;
mod keep;
mod lanes;
mod launch;
mod live;
mod logbook;
mod mask;
mod mode;
mod open;
mod output;
mod packages;
mod patience;
mod places;
mod presence;
mod restart;
mod resume;
mod run;
mod scribe;
pub mod secrets;
mod session;
mod sessions;
mod shutdown;
mod stage;
mod taken;

pub use config::Config;
pub use run::{Error, run};
