//! A progress bar for transfers: on a terminal only, and only for what takes a while.

use std::io::{self, IsTerminal as _};

use client::{Meter, Observer, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::say;

/// Below so many bytes, nobody would see a bar.
const WORTH_SHOWING: u64 = 4 << 20;

#[derive(Debug)]
struct Bar(ProgressBar);

impl Meter for Bar {
    fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn take_back(&self, bytes: u64) {
        self.0.dec(bytes);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// A bar on standard error for so many bytes; hidden where they are few, or standard error is not a terminal.
pub(crate) fn progress(verb: &'static str, bytes: u64) -> Progress {
    if bytes < WORTH_SHOWING || !io::stderr().is_terminal() {
        return Progress::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.set_prefix(verb);
    Progress::shown(Bar(bar))
}

/// Shows what a client reports on standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal;

impl Observer for Terminal {
    fn notice(&self, sentence: &str) {
        say!("{sentence}");
    }

    fn begin(&self, verb: &'static str, bytes: u64) -> Progress {
        progress(verb, bytes)
    }
}
