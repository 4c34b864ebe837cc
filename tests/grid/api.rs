//! The API, over a real nats-server, a store and (where it lists) a real Postgres. Workers are played by hand.

mod artifacts;
mod chosen;
mod conditions;
mod doctor;
mod facts;
mod files;
mod followers;
mod lifecycle;
mod list;
mod logs;
mod outages;
mod poison;
mod problems;
mod requeue;
pub(crate) mod served;
mod strangers;
mod submit;
mod workers;
