//! Each worker's last beat: a cache for those who look at workers. Nothing depends on it, so nothing waits for it.

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

/// How often beats are written; the last of each worker.
const EVERY: Duration = Duration::from_secs(1);

/// A beat of an unknown worker (one of the watcher's own, or of a worker whose registration is still to be folded) is skipped.
const UPSERT: &str = "
    INSERT INTO worker_heartbeats (worker, session, last_beat, cpu_milli_free, memory_bytes_free, load, attempts)
    SELECT u.worker, u.session, u.last_beat, u.cpu_milli_free, u.memory_bytes_free, u.load, u.attempts::json
    FROM UNNEST($1::text[], $2::uuid[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::real[], $7::text[])
      AS u (worker, session, last_beat, cpu_milli_free, memory_bytes_free, load, attempts)
    JOIN workers ON workers.id = u.worker
    ON CONFLICT (worker) DO UPDATE SET
        session = EXCLUDED.session, last_beat = EXCLUDED.last_beat, cpu_milli_free = EXCLUDED.cpu_milli_free,
        memory_bytes_free = EXCLUDED.memory_bytes_free, load = EXCLUDED.load, attempts = EXCLUDED.attempts";

/// Keeps the last beats in the table until it is told to stop.
pub(crate) async fn keep(js: jetstream::Context, store: Store, stop: CancellationToken) {
    // The stream holds the last beat of each worker and no other, so it is read from its start.
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
                    debug!("the last beats are not in the tables: {}; the next ones will be", chain(&error));
                }
                beats.clear();
            }
        }
    }
}

/// A delete marker is no beat, and neither is what cannot be read.
fn read(message: &Followed) -> Option<(String, Heartbeat)> {
    let worker = subjects::parse_beat(&message.subject)?.to_owned();
    Some((worker, serde_json::from_slice(&message.payload).ok()?))
}

async fn write(store: &Store, beats: &HashMap<String, (DateTime<Utc>, Heartbeat)>) -> Result<(), sqlx::Error> {
    // In one order, so that two projectors do not wait for one another crosswise.
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
