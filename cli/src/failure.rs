//! How a verb fails: what is printed, and the exit code.

use std::{fmt, process::ExitCode};

use crate::output::{Closed, say_line};

/// The exit code of what the machine or the grid could not do.
const OPERATIONAL: u8 = 1;
/// The exit code of what the user must write otherwise.
const USAGE: u8 = 2;

/// Something that the user must write otherwise: said in one sentence, and ends with exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A usage error with this sentence.
pub(crate) fn usage(sentence: impl Into<String>) -> anyhow::Error {
    Usage(sentence.into()).into()
}

/// Prints why a verb failed, and says with which exit code the program ends.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<Closed>() {
        return ExitCode::SUCCESS;
    }
    say_line("error", &sentence(error));
    let refused = error.downcast_ref::<client::Error>().is_some_and(client::Error::is_usage);
    ExitCode::from(if refused || error.is::<Usage>() { USAGE } else { OPERATIONAL })
}

/// An error and its causes in one sentence; a cause whose words were said already is left out.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
