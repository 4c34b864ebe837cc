//! The proof: a grid of real processes, a load that leaves traces outside of it, faults from a seed, and a checker.

pub mod cases;
pub mod check;
pub mod fault;
pub mod hostile;
pub mod inject;
pub mod ledger;
pub mod load;
pub mod log;
pub mod measure;
pub mod net;
pub mod observer;
pub mod outcome;
pub mod rig;
pub mod stage;
pub mod trace;

#[cfg(test)]
mod check_tests;

/// Microseconds since 1970, by the machine's clock: traces, log and faults are all of one machine.
pub type Micros = i64;
/// One second.
pub const SECOND: Micros = 1_000_000;

/// What time it is.
#[must_use]
pub fn now() -> Micros {
    chrono::Utc::now().timestamp_micros()
}
