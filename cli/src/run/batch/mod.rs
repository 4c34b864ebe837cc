//! Many jobs of one command line: submitted as a batch, followed, and their outputs brought home.

mod follow;
mod items;
mod logs;
mod outputs;
mod progress;
pub(crate) mod report;
mod reuse;
mod submit;

pub(crate) use self::submit::run;
pub(crate) use self::{
    follow::follow,
    logs::logs,
    outputs::{OutputDirs, fetch},
};
