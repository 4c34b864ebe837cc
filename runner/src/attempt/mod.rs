//! One attempt, from its claim to its commit: its workspace, its inputs, its command, its outputs.

pub(crate) mod commit;
pub(crate) mod commit_outputs;
pub(crate) mod context;
pub(crate) mod deadline;
pub(crate) mod end;
pub(crate) mod execute;
pub(crate) mod fence;
pub(crate) mod launch;
pub(crate) mod leave;
pub(crate) mod left;
pub(crate) mod leftovers;
pub(crate) mod outputs;
pub(crate) mod registry;
pub(crate) mod room;
pub(crate) mod run;
pub(crate) mod secrets;
pub(crate) mod shutdown;
pub(crate) mod slot;
pub(crate) mod stage;
pub(crate) mod supervise;
pub(crate) mod workspace;
pub(crate) mod writer;
