//! The input files of a job, each named by its content.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_false, path::RelPath, refusal::Refusal};
use crate::ids::Digest;

/// A file that a job needs, referenced by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Where it stands in the work directory.
    pub path: RelPath,
    /// The content's SHA-256, its name in the store.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
    /// Its permission bits, where they are neither 0644 nor, if it may be executed, 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// When it was last changed, in milliseconds since 1970, as programs such as `make` see it; absent: when it was laid out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ms: Option<i64>,
}

impl InputFile {
    /// The permission bits that it is to have.
    #[must_use]
    pub fn permissions(&self) -> u32 {
        let usual = if self.executable { 0o755 } else { 0o644 };
        self.mode.map_or(usual, |mode| mode & 0o777)
    }
}

/// No path twice, and no file where another needs a directory.
pub(crate) fn check_paths(inputs: &[InputFile]) -> Result<(), Refusal> {
    let mut paths = BTreeSet::new();
    if let Some(twice) = inputs.iter().find(|file| !paths.insert(file.path.as_str())) {
        return Err(Refusal(format!(
            "two files are to stand at `{}`; give one of them another path",
            twice.path
        )));
    }
    let parents = |path: &str| path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect::<Vec<_>>();
    for file in inputs {
        if let Some(parent) = parents(file.path.as_str())
            .into_iter()
            .find(|parent| paths.contains(parent.as_str()))
        {
            return Err(Refusal(format!(
                "`{parent}` is a file, and `{}` needs a directory there; give one of them another path",
                file.path
            )));
        }
    }
    Ok(())
}
