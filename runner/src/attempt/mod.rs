//! One attempt, from its claim to its commit: its workspace, its inputs, its command, its outputs.

pub(crate) mod commit_outputs;
pub(crate) mod deadline;
pub(crate) mod fence;
pub mod inputs;
pub(crate) mod launch;
pub(crate) mod leftovers;
pub(crate) mod outputs;
pub(crate) mod registry;
pub(crate) mod removed;
pub(crate) mod run;
pub mod secrets;
pub(crate) mod spread;
pub(crate) mod stage;
pub(crate) mod supervise;
pub(crate) mod workspace;
