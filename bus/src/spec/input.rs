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
    /// The file's path in the work directory.
    pub path: RelPath,
    /// The content's SHA-256, which is also its name in the store.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// Whether the file is executable.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
    /// The permission bits, if they are not the default: 0644, or 0755 for an executable file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// When the file was last modified, in milliseconds since 1970, for programs such as `make`; absent: the time of staging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ms: Option<i64>,
}

impl InputFile {
    /// The permission bits that the staged file has.
    #[must_use]
    pub fn permissions(&self) -> u32 {
        let usual = if self.executable { 0o755 } else { 0o644 };
        self.mode.map_or(usual, |mode| mode & 0o777)
    }
}

/// Rejects inputs with the same path, and a file where another input needs a directory.
pub(crate) fn check_paths(inputs: &[InputFile]) -> Result<(), Refusal> {
    let mut paths = BTreeSet::new();
    if let Some(twice) = inputs.iter().find(|file| !paths.insert(file.path.as_str())) {
        return Err(Refusal(format!(
            "two inputs have the path `{}`; give one of them another path",
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
                "the input `{parent}` is a file, but `{}` needs a directory of that name; give one of them another path",
                file.path
            )));
        }
    }
    Ok(())
}
