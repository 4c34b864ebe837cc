//! What a transfer reports while it goes on: its progress, and notices for the user.

use std::{fmt, sync::Arc};

/// Receives what transfers report. The default one ([`Silent`]) drops it.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A sentence for the user: a transfer was interrupted, or takes another way.
    fn notice(&self, sentence: &str);

    /// A transfer of `bytes` bytes begins; `verb` says which, such as `sending`.
    fn begin(&self, verb: &'static str, bytes: u64) -> Progress;
}

/// Counts the bytes of one transfer.
pub trait Meter: fmt::Debug + Send + Sync {
    /// `bytes` more bytes are done.
    fn add(&self, bytes: u64);

    /// `bytes` bytes have to be done again.
    fn take_back(&self, bytes: u64);

    /// The transfer is over.
    fn finish(&self);
}

/// The progress of one transfer, for a [`Meter`] if there is one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress(Option<Arc<dyn Meter>>);

impl Progress {
    /// Progress that nobody looks at.
    #[must_use]
    pub const fn hidden() -> Self {
        Self(None)
    }

    /// Progress that this meter shows.
    pub fn shown(meter: impl Meter + 'static) -> Self {
        Self(Some(Arc::new(meter)))
    }

    /// `bytes` more bytes are done.
    pub fn add(&self, bytes: u64) {
        if let Some(meter) = &self.0 {
            meter.add(bytes);
        }
    }

    /// `bytes` bytes have to be done again.
    pub fn take_back(&self, bytes: u64) {
        if let Some(meter) = &self.0 {
            meter.take_back(bytes);
        }
    }

    /// The transfer is over.
    pub fn finish(&self) {
        if let Some(meter) = &self.0 {
            meter.finish();
        }
    }
}

/// Drops all that is reported.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn notice(&self, _sentence: &str) {}

    fn begin(&self, _verb: &'static str, _bytes: u64) -> Progress {
        Progress::hidden()
    }
}
