//! What a person or a program sees.

mod bar;
mod streams;
mod table;
mod words;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

pub(crate) use self::{
    bar::Bar,
    streams::Streams,
    table::{Align, table},
    words::{ago, clock, counted, cpus, duration, harmless, one_line, shown_lines, size, typed, words_of, words_of_wait},
};

/// Prints text on standard output as it is.
///
/// # Errors
/// If it cannot be written; [`Closed`] if nobody reads any more.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(written)
}

/// Prints a line on standard output.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Prints a value as JSON on standard output: indented for a person, on one line for a program.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    let text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)?
    } else {
        serde_json::to_string(value)?
    };
    print_line(&text)
}

/// Nobody reads our standard output any more (`rgrid list | head`).
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(crate) struct Closed;

/// What an error of writing to standard output means.
pub(crate) fn written(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Closed.into()
    } else {
        anyhow::Error::new(error).context("cannot write to standard output")
    }
}
