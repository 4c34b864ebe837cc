//! The options that a plan depends on.

use std::ffi::OsString;

use crate::run::args::files::FileArgs;

/// The options that a plan depends on.
#[derive(Debug, Default)]
pub(crate) struct PlanOptions<'a> {
    /// The runtime, if the user named one.
    pub(crate) runtime: Option<&'a str>,
    /// Runtimes of further file extensions.
    pub(crate) runtimes: Vec<(String, String)>,
    /// Whether the first word is a program that is installed on the worker.
    pub(crate) program: bool,
    /// Arguments whose files are not sent.
    pub(crate) no_input: &'a [OsString],
    /// The options about files; `None`: send only the files that the arguments name.
    pub(crate) files: Option<&'a FileArgs>,
}
