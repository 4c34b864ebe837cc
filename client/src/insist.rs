//! Idempotent requests, which are repeated until the grid answers.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;

use super::{Client, Error, patience::Patience};

/// How long one try waits for its answer: over a connection that broke without a word, none ever comes.
const ANSWERED: Duration = Duration::from_secs(60);

impl Client {
    /// Sends a request, and sends it again while what went wrong may pass: the API restarts, or the connection breaks after the
    /// request was sent. The request must be one that is carried out once however often it is sent.
    ///
    /// A grid that never answered is not waited for: as a rule the address is wrong, or it is not up.
    ///
    /// # Errors
    /// If the grid refuses, or does not answer for a minute.
    pub async fn insist<T: DeserializeOwned>(&self, request: impl Fn() -> RequestBuilder) -> Result<T, Error> {
        self.again(async || self.json(request().timeout(ANSWERED)).await).await
    }

    /// The same, for a request whose answer says nothing but that it was carried out.
    ///
    /// # Errors
    /// If the grid refuses, or does not answer for a minute.
    pub async fn insist_on(&self, request: impl Fn() -> RequestBuilder) -> Result<(), Error> {
        self.again(async || self.send(request().timeout(ANSWERED)).await.map(drop)).await
    }

    async fn again<T>(&self, a_try: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
        let mut patience = Patience::from(0);
        let mut perhaps_done = false;
        loop {
            let mut error = match a_try().await {
                Ok(answer) => {
                    self.is_well();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            perhaps_done |= error.is_indeterminate();
            let worth_it = error.may_pass() && (perhaps_done || self.answered.load(Ordering::Relaxed));
            if !worth_it || !patience.holds() {
                if let Error::Unreachable { indeterminate, .. } | Error::Silent { indeterminate, .. } = &mut error {
                    *indeterminate = perhaps_done;
                }
                return Err(error);
            }
            patience.pause(self, &error).await;
        }
    }
}
