//! What a person or a program sees.

mod bar;
mod describe;
mod harmless;
mod streams;
mod table;
mod units;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

pub(crate) use self::{
    bar::{Terminal, progress},
    describe::{describe_event, describe_wait},
    harmless::{harmless, harmless_json, one_line, shown_lines, typed},
    streams::Streams,
    table::{Align, table},
    units::{ago, clock, counted, cpus, duration, size, uploaded},
};

/// Says a line of ours on standard error. What others chose in it moves no cursor and begins no line.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::output::say_line("rgrid", &format!($($words)*))
    };
}
pub(crate) use say;

/// Says a line on standard error, behind who says it.
pub(crate) fn say_line(who: &str, text: &str) {
    eprintln!("{who}: {}", harmless(text));
}

/// Prints lines of ours on standard output. What others chose in them does nothing to a terminal.
///
/// # Errors
/// If it cannot be written; [`Closed`] if nobody reads any more.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let lines: Vec<_> = text.split('\n').map(harmless).collect();
    print_as_it_is(&lines.join("\n"))
}

/// Prints text on standard output byte by byte: what we made ourselves, for a program.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_as_it_is(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(written)
}

/// Prints a line on standard output, whatever is in it.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    print_as_it_is(&format!("{}\n", harmless(text)))
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
    print_as_it_is(&format!("{}\n", harmless_json(&text)))
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
