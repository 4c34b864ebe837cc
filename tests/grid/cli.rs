//! The command line, with the real binary against a real grid.

mod bad_input;
mod bench;
mod contract;
mod here;
mod interrupt;
mod look;
mod outages;
mod side_by_side;
