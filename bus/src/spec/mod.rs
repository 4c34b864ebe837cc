//! The specification of a job, as users submit it and as the log stores it.

pub mod dependencies;
mod input;
mod job_spec;
mod path;
pub mod pep440;
pub mod policy;
mod refusal;
mod resources;
pub mod reuse;
pub mod runtime;
pub mod submission;
pub mod tree;

pub use self::{
    input::InputFile,
    job_spec::{ExecutorKind, JobSpec, Origin, OriginKind},
    path::RelPath,
    refusal::Refusal,
    resources::{Class, Priority, Resources, Size},
};

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}
