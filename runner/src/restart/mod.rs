//! The restart of a runner: the attempts that it leaves running, and how the next runner continues them.

pub(crate) mod attempt;
pub(crate) mod note;
pub(crate) mod session;
