//! Every service of a grid as a verb: its options, its log, its end.

mod api;
mod projector;
mod runner;
mod settings;
mod stop;
pub(crate) mod telemetry;
mod watcher;

pub(crate) use self::{
    api::{ApiArgs, api},
    projector::{ProjectorArgs, projector},
    runner::{RunnerArgs, runner},
    watcher::{WatcherArgs, watcher},
};
