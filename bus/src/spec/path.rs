//! Relative paths below a job's work directory.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::ParseError;

/// A path below a job's work directory: relative, separated by `/`, without `.`, `..`, empty parts or NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct RelPath(String);

impl RelPath {
    /// The longest path, in bytes (Linux's `PATH_MAX`, less the length of the work directory's path).
    pub const MAX_LEN: usize = 3072;

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RelPath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let part_fits = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
        if text.len() <= Self::MAX_LEN && !text.contains('\0') && text.split('/').all(part_fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError {
                text: text.to_owned(),
                expected: "a relative path below the work directory (no leading `/`, no `.` or `..` in it)",
            })
        }
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
