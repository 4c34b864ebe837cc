//! The table of each worker's inventory: a cache of the stream that keeps each worker's last one. It is not part of the fold, and not in
//! one order with it: a worker's inventory may be in its table before its registration is.

use std::time::Duration;

use async_nats::jetstream;
use bus::{
    ids::SessionId,
    log::{
        EQUIPMENT,
        follow::{Followed, Follower},
    },
    subjects,
    worker::CurrentEquipment,
};
use chrono::{DateTime, Utc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    project::chain,
    rows,
    source::{pause, pauses},
    store::{Error, Store},
};

/// How often to check whether the stream exists: some grids do without.
const LOOK: Duration = Duration::from_secs(60);
/// How many messages are under way at once, each of some 20 KB if a worker has many images.
const WINDOW: usize = 64;
/// How long a rebuild waits for the stream's messages.
const PATIENCE: Duration = Duration::from_secs(60);

const UPSERT: &str = "
    INSERT INTO worker_equipment (worker, session, registered_at, said_at, equipment) VALUES ($1, $2, $3, $4, $5::text::jsonb)
    ON CONFLICT (worker) DO UPDATE SET
        session = EXCLUDED.session, registered_at = EXCLUDED.registered_at, said_at = EXCLUDED.said_at, equipment = EXCLUDED.equipment";
/// Removes what the stream does not keep any more.
const FORGET: &str = "DELETE FROM worker_equipment WHERE said_at < $1";

/// A worker's inventory, as a row.
struct Row {
    worker: String,
    session: SessionId,
    registered_at: DateTime<Utc>,
    said_at: DateTime<Utc>,
    equipment: String,
}

impl Row {
    /// Decodes a message; nothing if it cannot be read.
    fn read(message: &Followed) -> Option<Self> {
        let worker = subjects::parse_equipment(&message.subject)?;
        let current: CurrentEquipment = serde_json::from_slice(&message.payload)
            .inspect_err(|error| debug!("the inventory of worker {worker} cannot be read: {error}"))
            .ok()?;
        Some(Self {
            worker: worker.to_string(),
            session: current.equipped.session,
            registered_at: rows::time(current.registered_at),
            said_at: message.stored_at,
            equipment: rows::equipment(&current.equipped),
        })
    }

    /// Writes the row. A row that the database rejects is left out.
    async fn write(&self, store: &Store) -> Result<(), Error> {
        match self.upsert(store).await.map_err(Error::writing) {
            Err(Error::Rejected(error)) => {
                warn!(
                    "the inventory of worker {} is left out of the tables: {}",
                    self.worker,
                    chain(&error)
                );
                Ok(())
            }
            written => written,
        }
    }

    async fn upsert(&self, store: &Store) -> Result<(), sqlx::Error> {
        let mut transaction = store.pool.begin().await?;
        sqlx::query(UPSERT)
            .bind(&self.worker)
            .bind(self.session.uuid())
            .bind(self.registered_at)
            .bind(self.said_at)
            .bind(&self.equipment)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(FORGET)
            .bind(self.said_at - CurrentEquipment::KEPT)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

/// Keeps the workers' inventories in the table until it is stopped.
pub(crate) async fn keep(js: jetstream::Context, store: Store, stop: CancellationToken) {
    while js.get_stream(EQUIPMENT).await.is_err() {
        if stop.run_until_cancelled(sleep(LOOK)).await.is_none() {
            return;
        }
    }
    // The stream holds only the last inventory of each worker, so it is read from its start.
    let mut follower = follower(&js);
    while let Some(message) = stop.run_until_cancelled(follower.next()).await {
        let Some(row) = Row::read(&message) else { continue };
        let mut pauses = pauses();
        while let Some(Err(error)) = stop.run_until_cancelled(row.write(&store)).await {
            // The write is tried until it succeeds: the worker may not publish its inventory again for an hour.
            debug!("the inventory of worker {} is not in the tables yet: {}", row.worker, chain(&error));
            if !pause(&mut pauses, &stop).await {
                return;
            }
        }
    }
}

/// Fills the table of a rebuild from the stream. If that fails, the projector fills it at its start.
pub(crate) async fn fill(js: &jetstream::Context, store: &Store) {
    match js.get_stream(EQUIPMENT).await {
        Ok(stream) if stream.cached_info().state.messages > 0 => {}
        _ => return,
    }
    let mut follower = follower(js);
    while let Ok(message) = timeout(PATIENCE, follower.next()).await {
        if let Some(row) = Row::read(&message)
            && let Err(error) = row.write(store).await
        {
            warn!(
                "the inventory of worker {} is not in the rebuilt tables: {}",
                row.worker,
                chain(&error)
            );
        }
        if message.pending == 0 {
            return;
        }
    }
}

fn follower(js: &jetstream::Context) -> Follower {
    Follower::new(js, EQUIPMENT, Vec::new(), 0).window(WINDOW)
}
