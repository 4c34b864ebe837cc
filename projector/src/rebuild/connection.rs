//! The connections of a rebuild, and the lock that only one rebuild has.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::sleep;
use tracing::debug;

use super::failed;
use crate::Error;

/// The key of the lock that only one rebuild has: "rgrid" in ASCII.
const LOCK: i64 = 0x7267_7269_6400;
/// How long, and how often, to try to take that lock: the database notices within a second that a killed rebuild is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// A connection for everything except folding. Its statements end soon after this program has ended (Postgres 14 and later).
pub(super) async fn connect(database: &PgConnectOptions) -> Result<PgConnection, Error> {
    const CHECKED: &str = "
        SELECT set_config(name, '1s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";
    let mut connection = PgConnection::connect_with(database).await.map_err(failed("reach the database"))?;
    if let Err(error) = sqlx::raw_sql(CHECKED).execute(&mut connection).await {
        debug!("the database does not notice when a client is gone: {error}");
    }
    Ok(connection)
}

/// Takes the lock of rebuilds, which this connection then holds for as long as it lives.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("lock the rebuild"))?;
        if alone {
            return Ok(());
        }
        if begun.elapsed() > LOCK_PATIENCE {
            return Err(Error::Busy);
        }
        sleep(LOCK_PAUSE).await;
    }
}
