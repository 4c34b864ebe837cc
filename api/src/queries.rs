//! All reads from Postgres.

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

/// The most connections to Postgres. Unused ones are closed.
const CONNECTIONS_MAX: u32 = 4;
/// How long a query waits for a connection.
const ACQUIRE_MAX: Duration = Duration::from_secs(2);
/// How long a statement may take, in milliseconds.
const STATEMENT_TIMEOUT_MS: &str = "10000";

/// The tables in Postgres, if the API was started with a database.
#[derive(Debug, Clone)]
pub(crate) struct Tables(Option<PgPool>);

impl Tables {
    /// The tables at this URL. The first query connects.
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
            .max_connections(CONNECTIONS_MAX)
            .min_connections(0)
            .acquire_timeout(ACQUIRE_MAX)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options);
        Ok(Self(Some(pool)))
    }

    fn pool(&self) -> Result<&PgPool, ApiError> {
        self.0.as_ref().ok_or_else(|| {
            let detail = "this API was started without Postgres, which lists need; start it with --database-url";
            ApiError::new(Kind::Unavailable, detail)
        })
    }

    /// Whether the API was started with a database.
    pub(crate) const fn is_configured(&self) -> bool {
        self.0.is_some()
    }

    /// Whether Postgres answers.
    pub(crate) async fn is_available(&self) -> bool {
        let Some(pool) = &self.0 else { return false };
        let asked = sqlx::query("SELECT 1").execute(pool);
        matches!(tokio::time::timeout(Duration::from_millis(500), asked).await, Ok(Ok(_)))
    }

    /// The last event that the tables hold.
    pub(crate) async fn sequence(&self) -> Result<u64, ApiError> {
        let sequence: Option<i64> = sqlx::query_scalar("SELECT sequence FROM projection_checkpoint")
            .fetch_optional(self.pool()?)
            .await
            .map_err(unavailable)?;
        Ok(unsigned(sequence.unwrap_or(0)))
    }
}

fn unavailable(error: sqlx::Error) -> ApiError {
    // Not a warning: the projector logs the outage.
    debug!("Postgres: {}", chain(&error));
    let detail = match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
            "Postgres does not answer, and lists need it; submissions, single jobs, logs and files work without it".to_owned()
        }
        other => format!(
            "the query failed in Postgres: {}; check that the projector runs, which creates the tables",
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
