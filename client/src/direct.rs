//! The store itself, where the API hands out signed URLs to it.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::{Method, RequestBuilder, Url};

use super::{Client, http};

/// Whether, and how, the store is reached without the API.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// It could not be reached: everything goes through the API.
    off: AtomicBool,
    http: OnceLock<Option<reqwest::Client>>,
}

impl Client {
    /// Whether it is worth trying.
    pub(super) fn is_direct(&self) -> bool {
        !self.direct.off.load(Ordering::Relaxed)
    }

    /// Gives it up, and says so, once.
    pub(super) fn give_up_direct(&self, url: &Url, why: &dyn fmt::Display) {
        if !self.direct.off.swap(true, Ordering::Relaxed) {
            let store = url.origin().ascii_serialization();
            self.notice(&format!(
                "the store at {store} cannot be reached from here ({why}); files are transferred through the API"
            ));
        }
    }

    /// A request to the store; nothing if none can be made.
    pub(super) fn store_request(&self, method: Method, url: &Url) -> Option<RequestBuilder> {
        let http = self.direct.http.get_or_init(|| http(url).ok());
        Some(http.as_ref()?.request(method, url.clone()))
    }
}

/// An error's last cause, which says the most.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
