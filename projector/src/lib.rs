//! The projector: folds the log into the read models in Postgres.
//!
//! The path of an event: `source` reads a batch of events; `project` (pure) folds it into row changes; `store` writes the changes and the
//! checkpoint in one transaction; `run` is the loop around them. So at every moment the tables are the fold of the log up to the
//! checkpoint, whatever is killed when. [`rebuild`](rebuild()) makes new tables beside the live ones, compares them, and swaps them in.
//!
//! The projector's memory of live jobs is a cache of the tables. When a transaction fails, the projector drops this memory and continues
//! from the checkpoint.

mod batches;
mod config;
mod error;
mod heartbeats;
mod inventory;
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
