//! A runner that restarts: what it leaves to the next one, and how that one goes on.

pub(crate) mod attempt;
pub(crate) mod note;
pub(crate) mod session;
