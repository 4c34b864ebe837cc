//! Workers over HTTP: listed, and cordoned or drained by an operator.

pub(crate) mod list;
pub(crate) mod operator;
