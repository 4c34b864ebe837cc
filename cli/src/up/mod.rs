//! The embedded grid: everything on one machine, in one data directory, with one command.
//!
//! `rgrid up` is a supervisor: it starts a private nats-server and `PostgreSQL`, then rgrid's services as processes of their
//! own, and keeps them up. What it does about what happens is decided in [`supervise`], without a clock or a process; [`run`]
//! carries it out. Where everything lies stands in [`dir`].

mod args;
mod detach;
mod dir;
mod disk;
mod down;
mod embedded;
mod grid_file;
mod http;
mod launch;
mod leftovers;
mod logs;
mod nats;
mod part;
mod ports;
mod postgres;
mod process;
mod programs;
mod record;
mod report;
mod run;
mod start;
mod status;
mod supervise;

pub(crate) use args::{DownArgs, UpArgs};
pub(crate) use dir::default_data_dir;
pub(crate) use down::down;
pub(crate) use embedded::Embedded;
pub(crate) use grid_file::{GridFile, worker_name};
pub(crate) use start::up;
pub(crate) use status::{Local, local, status};
