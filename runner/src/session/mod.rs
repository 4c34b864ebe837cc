//! One session of a runner: the loop that asks for work, sends heartbeats and receives control signals.

pub(crate) mod background;
pub(crate) mod control;
pub(crate) mod dispatcher;
pub(crate) mod ending;
pub(crate) mod heartbeat;
pub(crate) mod inventory;
pub(crate) mod lifecycle;
pub(crate) mod mode;
pub(crate) mod prefetched;
pub(crate) mod presence;
pub(crate) mod queues;
pub(crate) mod serve;
