//! A progress bar for transfers: on a terminal only, and only for what takes a while.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Below so many bytes, nobody would see a bar.
const WORTH_SHOWING: u64 = 4 << 20;

/// A progress bar, or nothing at all. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar on standard error for so many bytes; hidden where they are few, or standard error is no terminal.
    pub(crate) fn new(what: &'static str, bytes: u64) -> Self {
        if bytes < WORTH_SHOWING || !io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Self(Some(bar))
    }

    /// No bar.
    pub(crate) const fn hidden() -> Self {
        Self(None)
    }

    /// So many bytes more are done.
    pub(crate) fn add(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    /// So many bytes are not done after all.
    pub(crate) fn take_back(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.dec(bytes);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
