//! What the user wants of a plan.

use std::ffi::OsString;

use crate::run::args::files::FileArgs;

/// What the user said about all that.
#[derive(Debug, Default)]
pub(crate) struct Wishes<'a> {
    /// The runtime, if named.
    pub(crate) runtime: Option<&'a str>,
    /// What further extensions mean.
    pub(crate) runtimes: Vec<(String, String)>,
    /// Whether the first word is a program that is there already.
    pub(crate) program: bool,
    /// Arguments that are not to be sent along.
    pub(crate) no_input: &'a [OsString],
    /// What goes along besides; nothing: what the arguments name, alone.
    pub(crate) files: Option<&'a FileArgs>,
}
