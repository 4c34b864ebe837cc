//! What a client does, one verb a file.

pub(crate) mod attach;
pub(crate) mod batch_words;
pub(crate) mod cancel;
mod cancel_many;
pub(crate) mod completions;
pub(crate) mod cordon;
pub(crate) mod docs;
pub(crate) mod doctor;
pub(crate) mod download;
pub(crate) mod drain;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod logs;
pub(crate) mod requeue;
pub(crate) mod rerun;
pub(crate) mod retry;
pub(crate) mod runtimes;
pub(crate) mod secret;
pub(crate) mod status;
pub(crate) mod storage;
pub(crate) mod trust;
pub(crate) mod undo;
pub(crate) mod version;
pub(crate) mod workers;
