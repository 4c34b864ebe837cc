//! The lease of the storage pass: one pass at a time, and the report of the last one.

use bus::{ids::PassId, subjects};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Marks, failed, last, write};
use crate::Error;

/// A pass whose lease was not renewed for this long counts as dead.
pub const LIFE: TimeDelta = TimeDelta::minutes(5);
/// The right to run a pass.
#[derive(Debug)]
pub struct Lease {
    marks: Marks,
    /// Which pass this is.
    pub pass: PassId,
    /// When it began, by the server's clock, as the marks are.
    pub started: DateTime<Utc>,
    /// The last sequence of the log that any pass has seen; 0: none.
    pub seen: u64,
    sequence: u64,
}

/// The record of the last pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leased<R> {
    /// Which pass.
    pub pass: PassId,
    /// When it began.
    pub started: Option<DateTime<Utc>>,
    /// Its report; `None` while it runs.
    pub report: Option<R>,
    /// The last sequence of the log that any pass has seen; 0: none.
    #[serde(default)]
    pub seen: u64,
}

impl Marks {
    /// Begins a pass, unless another one runs: then returns when that one last renewed its lease.
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

    /// The report of the last pass, and when it ended; `None` before the first pass, and while one runs.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn last_pass<R: DeserializeOwned>(&self) -> Result<Option<(R, DateTime<Utc>)>, Error> {
        let lease = self.lease().await?;
        Ok(lease.and_then(|(leased, _, stored)| Some((leased.report?, stored))))
    }

    /// The last sequence of the log that any pass has seen; 0: none.
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
        let leased = serde_json::from_slice(&payload).map_err(|error| failed("parse the lease", error))?;
        Ok(Some((leased, sequence, stored)))
    }
}

impl Lease {
    /// The marks that this pass may change.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Renews the lease. Returns whether this pass still holds it: no other pass took it for dead.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn renew(&mut self) -> Result<bool, Error> {
        self.write(&Leased::<()> {
            pass: self.pass,
            started: Some(self.started),
            report: None,
            seen: self.seen,
        })
        .await
    }

    /// Ends the pass with its report. Returns whether it still held the lease.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn end<R: Serialize>(mut self, report: &R) -> Result<bool, Error> {
        self.write(&Leased {
            pass: self.pass,
            started: Some(self.started),
            report: Some(report),
            seen: self.seen,
        })
        .await
    }

    async fn write<R: Serialize>(&mut self, leased: &Leased<R>) -> Result<bool, Error> {
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
        .map_err(|error| failed("serialize the lease", error))
}
