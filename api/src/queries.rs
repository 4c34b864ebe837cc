//! All that is read from Postgres.

mod batches;
mod doctor;
mod jobs;
mod workers;

use std::time::Duration;

use model::Kind;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing::debug;

pub(crate) use self::{
    batches::{BatchFilter, MemberFilter},
    doctor::{Counts, Dead},
    jobs::{Filter, Revivable},
};
use crate::error::{ApiError, chain};

/// Connections that are kept for reading; none while nobody reads.
const CONNECTIONS: u32 = 4;
/// How long a reader waits for one.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a statement may take, in milliseconds.
const STATEMENT_TIMEOUT_MS: &str = "10000";

/// The read models; perhaps not there.
#[derive(Debug, Clone)]
pub(crate) struct Tables(Option<PgPool>);

impl Tables {
    /// The tables at this URL; connected to when they are first asked for.
    pub(crate) fn at(url: Option<&str>) -> Result<Self, sqlx::Error> {
        let Some(url) = url else { return Ok(Self(None)) };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(sqlx::Error::Configuration("the URL does not begin with postgres://".into()));
        }
        let options: PgConnectOptions = url.parse()?;
        let options = options
            .application_name("rgrid api")
            .options([("statement_timeout", STATEMENT_TIMEOUT_MS)]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(0)
            .acquire_timeout(PATIENCE)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options);
        Ok(Self(Some(pool)))
    }

    fn pool(&self) -> Result<&PgPool, ApiError> {
        self.0.as_ref().ok_or_else(|| {
            let detail = "this API was started without Postgres, and cannot list; start it with --database-url";
            ApiError::new(Kind::Unavailable, detail)
        })
    }

    /// Whether there are tables to be asked.
    pub(crate) const fn are_there(&self) -> bool {
        self.0.is_some()
    }

    /// Whether Postgres answers.
    pub(crate) async fn answer(&self) -> bool {
        let Some(pool) = &self.0 else { return false };
        let asked = sqlx::query("SELECT 1").execute(pool);
        matches!(tokio::time::timeout(Duration::from_millis(500), asked).await, Ok(Ok(_)))
    }

    /// The last event that the tables hold.
    pub(crate) async fn sequence(&self) -> Result<u64, ApiError> {
        let sequence: Option<i64> = sqlx::query_scalar("SELECT sequence FROM projection_checkpoint")
            .fetch_optional(self.pool()?)
            .await
            .map_err(away)?;
        Ok(unsigned(sequence.unwrap_or(0)))
    }
}

fn away(error: sqlx::Error) -> ApiError {
    // An operator sees it in the projector's log too; here it is one request's trouble.
    debug!("Postgres: {}", chain(&error));
    let detail = match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
            "Postgres does not answer, so nothing can be listed; submitting, single jobs, logs and files go on without it".to_owned()
        }
        other => format!(
            "Postgres could not answer: {}; is the projector running, which makes the tables?",
            chain(&other)
        ),
    };
    ApiError::new(Kind::Unavailable, detail)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
