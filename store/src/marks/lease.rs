//! One pass at a time: who collects, since when, and what the last pass came to.

use bus::{ids::PassId, subjects};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Marks, failed, last, write};
use crate::Error;

/// After so long without a sign of life a pass counts as dead.
pub const LIFE: TimeDelta = TimeDelta::minutes(5);
/// The right to collect.
#[derive(Debug)]
pub struct Lease {
    marks: Marks,
    /// Which pass this is.
    pub pass: PassId,
    /// When it began, by the server's clock, as the marks are.
    pub started: DateTime<Utc>,
    /// The last sequence of the log that any pass has seen; 0: none has.
    pub seen: u64,
    sequence: u64,
}

/// What is said of the last pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leased<R> {
    /// Which pass.
    pub pass: PassId,
    /// When it began.
    pub started: Option<DateTime<Utc>>,
    /// What it came to; nothing while it is under way.
    pub report: Option<R>,
    /// The last sequence of the log that any pass has seen; 0: none has.
    #[serde(default)]
    pub seen: u64,
}

impl Marks {
    /// Begins a pass, unless another one is under way: then nothing, but when that gave its last sign of life.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn begin(&self) -> Result<Result<Lease, DateTime<Utc>>, Error> {
        let before = self.lease::<serde_json::Value>().await?;
        if let Some((leased, _, stored)) = &before
            && leased.report.is_none()
            && Utc::now().signed_duration_since(stored) < LIFE
        {
            return Ok(Err(*stored));
        }
        let (seen, expected) = before.map_or((0, 0), |(leased, sequence, _)| (leased.seen, sequence));
        let pass = PassId::new();
        let json = to_json(&Leased::<()> {
            pass,
            started: None,
            report: None,
            seen,
        })?;
        if write(&self.js, subjects::COLLECTOR.to_owned(), json, expected).await?.is_none() {
            return Ok(Err(Utc::now()));
        }
        match self.lease::<serde_json::Value>().await? {
            Some((leased, sequence, started)) if leased.pass == pass => Ok(Ok(Lease {
                marks: self.clone(),
                pass,
                started,
                seen,
                sequence,
            })),
            Some((_, _, stored)) => Ok(Err(stored)),
            None => Ok(Err(Utc::now())),
        }
    }

    /// What the last pass that ended came to, and when it did; nothing before the first, and while one is under way.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn last_pass<R: DeserializeOwned>(&self) -> Result<Option<(R, DateTime<Utc>)>, Error> {
        let lease = self.lease().await?;
        Ok(lease.and_then(|(leased, _, stored)| Some((leased.report?, stored))))
    }

    /// The last sequence of the log that any pass has seen; 0: none has.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn log_seen(&self) -> Result<u64, Error> {
        let lease = self.lease::<serde_json::Value>().await?;
        Ok(lease.map_or(0, |(leased, _, _)| leased.seen))
    }

    async fn lease<R: DeserializeOwned>(&self) -> Result<Option<(Leased<R>, u64, DateTime<Utc>)>, Error> {
        let Some((payload, sequence, stored)) = last(&self.js, &self.stream, subjects::COLLECTOR).await? else {
            return Ok(None);
        };
        let leased = serde_json::from_slice(&payload).map_err(|error| failed("understand who collects", error))?;
        Ok(Some((leased, sequence, stored)))
    }
}

impl Lease {
    /// The marks that this pass may change.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Gives a sign of life. Says whether this is still the pass that collects: nobody took it for dead.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn keep(&mut self) -> Result<bool, Error> {
        self.say(&Leased::<()> {
            pass: self.pass,
            started: Some(self.started),
            report: None,
            seen: self.seen,
        })
        .await
    }

    /// Ends the pass, with what it came to. Says whether it was still the one that collects.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn end<R: Serialize>(mut self, report: &R) -> Result<bool, Error> {
        self.say(&Leased {
            pass: self.pass,
            started: Some(self.started),
            report: Some(report),
            seen: self.seen,
        })
        .await
    }

    async fn say<R: Serialize>(&mut self, leased: &Leased<R>) -> Result<bool, Error> {
        let written = write(&self.marks.js, subjects::COLLECTOR.to_owned(), to_json(leased)?, self.sequence).await?;
        if let Some(sequence) = written {
            self.sequence = sequence;
        }
        Ok(written.is_some())
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| failed("write who collects", error))
}
