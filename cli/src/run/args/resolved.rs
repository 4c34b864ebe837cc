//! The options of a run after every layer was read.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::saving::NamedOutputs;

/// What the options came to, all places heard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolved {
    /// The script's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Its secrets: the variable, and the name.
    pub(crate) secrets: BTreeMap<String, String>,
    /// The outputs that the user, or a project that the user trusts, asks for; a script's head asks for none that others would run unasked.
    pub(crate) asked: NamedOutputs,
    /// Each option that was said, and where.
    pub(crate) origins: Vec<Origin>,
}

/// An option, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Origin {
    /// The option.
    pub(crate) option: String,
    /// Its value; of an environment variable its name, and nothing of a flag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) value: String,
    /// Where: the command line, a variable, or a file and its line.
    pub(crate) from: String,
}
