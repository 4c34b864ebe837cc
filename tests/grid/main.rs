#![allow(clippy::disallowed_methods, reason = "tests also append events that no service would append")]

mod again;
mod api;
mod batch;
mod carry;
mod chaos;
mod cli;
mod cluster;
mod crash;
mod examples;
mod executors;
mod files;
mod images;
mod intake;
mod lifecycle;
mod log;
mod outages;
mod packages;
mod poisoned;
mod projector;
mod runner;
mod runtimes;
mod secrets;
mod storage;
mod up;
mod watcher;
