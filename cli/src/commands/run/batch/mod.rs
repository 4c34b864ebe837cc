//! Many jobs of one command line: submitted as a batch, followed, and their outputs brought home.

mod follow;
mod items;
mod outputs;
mod progress;
pub(crate) mod report;
mod submit;

pub(super) use self::submit::run;
pub(crate) use self::{
    follow::{Followed, Manner, follow},
    outputs::{Homes, fetch},
};
