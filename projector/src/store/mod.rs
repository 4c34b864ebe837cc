//! The tables: creates and migrates them, reads what the fold does not remember, and writes rows with the checkpoint.

mod load;
mod write;

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, PgPool,
    error::ErrorKind,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The tables' definitions, in order.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One for the events, one for the heartbeats, one for what workers have.
const CONNECTIONS: u32 = 3;

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The checkpoint has moved: another projector, or a rebuild, wrote the tables.
    #[error("the tables moved past sequence {expected}")]
    Overtaken {
        /// The checkpoint that was expected.
        expected: u64,
    },
    /// A row that counted as new exists already.
    #[error("a row that should be new is there already")]
    Exists(#[source] sqlx::Error),
    /// The database rejects one of the values permanently.
    #[error("the database refused the rows")]
    Rejected(#[source] sqlx::Error),
    /// The database cannot be reached or used at the moment.
    #[error("the database cannot be used now")]
    Unavailable(#[from] sqlx::Error),
}

impl Error {
    /// Classifies an error of a write by what follows for the rows.
    pub(crate) fn writing(error: sqlx::Error) -> Self {
        let Some(answer) = error.as_database_error() else {
            return Self::Unavailable(error);
        };
        // Classes of SQLSTATE: 22 data exceptions, 23 constraints, 54 limits of the program.
        let class = answer.code().map(|code| code.chars().take(2).collect::<String>());
        match (answer.kind(), class.as_deref()) {
            (ErrorKind::UniqueViolation, _) => Self::Exists(error),
            (_, Some("22" | "23" | "54")) => Self::Rejected(error),
            _ => Self::Unavailable(error),
        }
    }
}

/// The position of the tables in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The sequence of the last event that they hold.
    pub(crate) sequence: u64,
    /// How many rebuilds have replaced them.
    pub(crate) generation: i64,
}

/// The tables of one schema.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) pool: PgPool,
}

impl Store {
    /// A pool of connections to the tables of this schema, or of the database's default schema. It connects when it is used.
    pub(crate) fn new(database: &PgConnectOptions, schema: Option<&str>) -> Self {
        let mut options = database
            .clone()
            .application_name("rgrid projector")
            .disable_statement_logging()
            .options([
                // Rows and checkpoint are lost together or not at all, and can be folded again: no commit waits for the disk.
                ("synchronous_commit", "off"),
                // The statements are few and the same for every batch, and look rows up by primary key. Each is planned once,
                // perhaps over an empty table, so it must not be a plan that is good for small tables alone.
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("enable_bitmapscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("jit", "off"),
            ]);
        if let Some(schema) = schema {
            options = options.options([("search_path", schema)]);
        }
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            // A broken connection is noticed by its use; a ping before each would cost a round trip.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Self { pool }
    }

    /// Creates the tables, or migrates them to this program's version.
    pub(crate) async fn migrate(&self) -> Result<(), MigrateError> {
        MIGRATIONS.run(&self.pool).await
    }
}
