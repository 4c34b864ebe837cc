//! Why a projector cannot run.

use async_nats::jetstream::context::GetStreamError;
use bus::log;
use sqlx::migrate::MigrateError;
use store::InvalidUrl;

/// Why the projector stops: something that the operator must change. Outages are waited out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection to NATS, and waiting would not help.
    #[error(transparent)]
    Connect(#[from] log::connect::Error),
    /// The streams do not have the required configuration.
    #[error(transparent)]
    Streams(#[from] log::setup::Error),
    /// The state of the log cannot be read.
    #[error("cannot read the state of the log")]
    Log(#[source] GetStreamError),
    /// The file store's URL is invalid.
    #[error(transparent)]
    Store(#[from] InvalidUrl),
    /// The database's URL is invalid.
    #[error("the database's URL cannot be read; write postgres://user:password@host:5432/name")]
    DatabaseUrl(#[source] sqlx::Error),
    /// The database denies access.
    #[error("Postgres does not let the projector into database {database}; are user, password and database right?")]
    Denied {
        /// The database, without its password.
        database: String,
        /// What Postgres answered.
        #[source]
        source: sqlx::Error,
    },
    /// The tables are of another version.
    #[error("the tables of database {database} are not of this program's version; use the rgrid that made them, or an empty database")]
    Migrate {
        /// The database, without its password.
        database: String,
        /// What is wrong.
        #[source]
        source: Box<MigrateError>,
    },
    /// The tables are ahead of the log.
    #[error(
        "the tables are at event {checkpoint} and the log ends at {last}: they belong to another log; \
         use another database, or make them anew with `rgrid projector rebuild`"
    )]
    AnotherLog {
        /// The last event that the tables hold.
        checkpoint: u64,
        /// The last event in the log.
        last: u64,
    },
    /// The log lacks its first events, so that nothing can be rebuilt from it.
    #[error("the log begins at event {first}, and what stood before was purged: a rebuild would lose it; restore the log first")]
    Beheaded {
        /// The first event in the log.
        first: u64,
    },
    /// Two rebuilds at once.
    #[error("another rebuild of this database is under way; wait for its end")]
    Busy,
    /// The tables are read so much that they cannot be swapped.
    #[error("the rebuilt tables could not be swapped in, because the old ones were in use for {seconds} s; try again")]
    InUse {
        /// For how long it was tried.
        seconds: u64,
    },
    /// The database failed during a rebuild. The live tables are as they were.
    #[error("failed to {doing}; the live tables are as they were")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// What happened.
        #[source]
        source: sqlx::Error,
    },
}
