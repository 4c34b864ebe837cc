//! The projector: folds the log into the read models in Postgres.
//!
//! The way of an event: [`run`] gathers what has come into a batch; [`project`] folds it, purely, into row changes; [`store`]
//! writes all of them and the checkpoint in one transaction. So the tables are at every moment the fold of the log up to the
//! checkpoint, whatever is killed when. [`rebuild`](rebuild()) makes them again beside the live ones, compares, and swaps.
//!
//! What the projector remembers of live jobs is a cache of the tables; whenever a transaction fails, it forgets all of it and
//! goes on from the checkpoint.

mod batches;
mod config;
mod equipment;
mod error;
mod heartbeats;
mod manifests;
mod project;
mod rebuild;
mod rows;
mod run;
mod source;
mod store;

pub use self::{
    config::Config,
    error::Error,
    rebuild::{Report, Table, rebuild},
    run::run,
};
