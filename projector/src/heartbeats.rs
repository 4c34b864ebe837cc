//! The table of each worker's last heartbeat: a cache for lists of workers. Nothing depends on it, so nothing waits for it.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream;
use bus::{
    log::{
        PRESENCE,
        follow::{Followed, Follower},
    },
    subjects,
    worker::Heartbeat,
};
use chrono::{DateTime, Utc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{project::chain, rows::bigint, store::Store};

/// How often the last heartbeats are written.
const EVERY: Duration = Duration::from_secs(1);

/// A heartbeat of an unknown worker (a watcher's own, or of a worker whose registration is not folded yet) is skipped.
const UPSERT: &str = "
    INSERT INTO worker_heartbeats (worker, session, last_beat, cpu_milli_free, memory_bytes_free, load, attempts)
    SELECT u.worker, u.session, u.last_beat, u.cpu_milli_free, u.memory_bytes_free, u.load, u.attempts::json
    FROM UNNEST($1::text[], $2::uuid[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::real[], $7::text[])
      AS u (worker, session, last_beat, cpu_milli_free, memory_bytes_free, load, attempts)
    JOIN workers ON workers.id = u.worker
    ON CONFLICT (worker) DO UPDATE SET
        session = EXCLUDED.session, last_beat = EXCLUDED.last_beat, cpu_milli_free = EXCLUDED.cpu_milli_free,
        memory_bytes_free = EXCLUDED.memory_bytes_free, load = EXCLUDED.load, attempts = EXCLUDED.attempts";

/// Keeps the last heartbeats in the table until it is stopped.
pub(crate) async fn keep(js: jetstream::Context, store: Store, stop: CancellationToken) {
    // The stream holds only the last heartbeat of each worker, so it is read from its start.
    let mut follower = Follower::new(&js, PRESENCE, Vec::new(), 0);
    let mut beats = HashMap::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            message = follower.next() => {
                if let Some((worker, beat)) = read(&message) {
                    beats.insert(worker, (message.stored_at, beat));
                }
            }
            _ = ticks.tick(), if !beats.is_empty() => {
                let Some(written) = stop.run_until_cancelled(write(&store, &beats)).await else { return };
                if let Err(error) = written {
                    debug!("cannot write the last heartbeats: {}; trying again with the next ones", chain(&error));
                }
                beats.clear();
            }
        }
    }
}

/// A heartbeat and its worker; nothing for a delete marker, and for what cannot be read.
fn read(message: &Followed) -> Option<(String, Heartbeat)> {
    let worker = subjects::parse_beat(&message.subject)?.to_owned();
    Some((worker, serde_json::from_slice(&message.payload).ok()?))
}

async fn write(store: &Store, beats: &HashMap<String, (DateTime<Utc>, Heartbeat)>) -> Result<(), sqlx::Error> {
    // In one order, so that two projectors do not deadlock.
    let mut beats: Vec<_> = beats.iter().collect();
    beats.sort_unstable_by_key(|(worker, _)| worker.as_str());
    let attempts: Vec<String> = beats.iter().map(|(_, (_, beat))| attempts(beat)).collect();
    sqlx::query(UPSERT)
        .bind(beats.iter().map(|(worker, _)| worker.as_str()).collect::<Vec<_>>())
        .bind(beats.iter().map(|(_, (_, beat))| beat.session.uuid()).collect::<Vec<_>>())
        .bind(beats.iter().map(|(_, (at, _))| *at).collect::<Vec<_>>())
        .bind(
            beats
                .iter()
                .map(|(_, (_, beat))| i64::from(beat.cpu_milli_free))
                .collect::<Vec<_>>(),
        )
        .bind(
            beats
                .iter()
                .map(|(_, (_, beat))| bigint(beat.memory_bytes_free))
                .collect::<Vec<_>>(),
        )
        .bind(beats.iter().map(|(_, (_, beat))| beat.load).collect::<Vec<_>>())
        .bind(attempts)
        .execute(&store.pool)
        .await?;
    Ok(())
}

#[allow(clippy::expect_used, reason = "a list of ids and numbers is JSON")]
fn attempts(beat: &Heartbeat) -> String {
    serde_json::to_string(&beat.attempts).expect("a list of ids and numbers is JSON")
}
