//! The command line, with the real binary against a real grid.

mod bad_input;
mod bench;
mod cancel;
mod conditions;
mod contract;
mod doctor;
mod drain;
pub(crate) mod here;
mod hostile;
mod interrupt;
mod log;
mod look;
mod lost_answers;
mod outages;
mod requeue;
mod side_by_side;
mod signals;
