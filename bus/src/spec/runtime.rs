//! The runtime that runs a job's script: its name, and optionally a version.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{ParseError, Token};

/// A runtime, as a job names it: `python` or `python:3.12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuntimeRef {
    /// The runtime's name, as workers have it in their inventory.
    pub name: Token,
    /// The required version or its first parts; `None`: any version.
    pub version: Option<String>,
}

/// The runtimes that are built in, and the extensions of the scripts that each runs.
pub const BUILT_IN: [(&str, &[&str]); 9] = [
    ("python", &["py", "pyw", "pyz"]),
    ("node", &["js", "mjs", "cjs"]),
    ("bash", &["bash"]),
    ("sh", &["sh"]),
    ("perl", &["pl"]),
    ("ruby", &["rb"]),
    ("php", &["php"]),
    ("R", &["r"]),
    ("julia", &["jl"]),
];

/// The built-in runtime for scripts with this extension.
#[must_use]
pub fn of_extension(extension: &str) -> Option<&'static str> {
    let runs = |extensions: &[&str]| extensions.iter().any(|known| known.eq_ignore_ascii_case(extension));
    BUILT_IN.iter().find(|(_, extensions)| runs(extensions)).map(|(name, _)| *name)
}

/// Whether a built-in runtime has this name.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|(known, _)| *known == name)
}

/// The longest version, in bytes.
const VERSION_MAX: usize = 32;

impl RuntimeRef {
    /// Whether an interpreter's version (`3.12.4`) matches the required version (`3.12`). Versions are compared part by part.
    #[must_use]
    pub fn is_met_by(&self, version: &str) -> bool {
        let Some(wanted) = &self.version else { return true };
        let mut parts = version.split('.');
        wanted.split('.').all(|part| parts.next() == Some(part))
    }
}

impl From<Token> for RuntimeRef {
    fn from(name: Token) -> Self {
        Self { name, version: None }
    }
}

impl fmt::Display for RuntimeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}:{version}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl FromStr for RuntimeRef {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = |version: &str| {
            (1..=VERSION_MAX).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let (name, version) = match text.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        match (name.parse(), version) {
            (Ok(name), None) => Ok(Self { name, version: None }),
            (Ok(name), Some(version)) if fits(version) => Ok(Self {
                name,
                version: Some(version.to_owned()),
            }),
            _ => Err(ParseError {
                text: text.to_owned(),
                expected: "a runtime, such as `python`, or `python:3.12` with a version",
            }),
        }
    }
}

impl Serialize for RuntimeRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RuntimeRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RuntimeRef {
    fn schema_name() -> Cow<'static, str> {
        "RuntimeRef".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9._-]{1,32})?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_part_by_part() {
        let wanted: RuntimeRef = "python:3.1".parse().expect("a runtime");
        assert!(wanted.is_met_by("3.1") && wanted.is_met_by("3.1.9"));
        assert!(!wanted.is_met_by("3.12.1") && !wanted.is_met_by("3"));
        assert!("python".parse::<RuntimeRef>().expect("a runtime").is_met_by("anything"));
        for text in ["", ":3", "python:", "python:3 1", "a b", "python:3:1"] {
            assert!(text.parse::<RuntimeRef>().is_err(), "{text}");
        }
        assert_eq!(wanted.to_string(), "python:3.1");
    }
}
