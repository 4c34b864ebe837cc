//! An attempt's log: live while it runs, kept whole when it ends, and without secrets.

pub(crate) mod live;
pub(crate) mod mask;
pub(crate) mod spool;
