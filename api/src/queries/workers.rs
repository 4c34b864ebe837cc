//! Queries on workers.

use std::collections::BTreeMap;

use bus::{
    ids::{Attempt, JobId, Token},
    spec::ExecutorKind,
    worker::Equipment,
};
use chrono::{DateTime, Utc};
use model::{Running, RuntimesOfWorker, WorkerView};
use serde::Deserialize;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{Tables, small, unavailable, unsigned};
use crate::error::ApiError;

#[derive(FromRow)]
struct WorkerRow {
    id: String,
    session: Uuid,
    state: String,
    cpu_milli: i64,
    memory_bytes: i64,
    queues: Vec<String>,
    executors: Vec<String>,
    labels: Json<BTreeMap<String, String>>,
    versions: Json<BTreeMap<String, String>>,
    host: String,
    registered_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    last_beat: Option<DateTime<Utc>>,
    cpu_milli_free: Option<i64>,
    memory_bytes_free: Option<i64>,
    load: Option<f32>,
    attempts: Option<Json<Vec<(JobId, Attempt)>>>,
    restarting_until: Option<DateTime<Utc>>,
    cordoned_at: Option<DateTime<Utc>>,
    cordon_reason: Option<String>,
    cordon_drain: bool,
    cordon_deadline: Option<DateTime<Utc>>,
}

/// Heartbeats of an earlier session are ignored.
const WORKERS: &str = "SELECT w.id, w.session, w.state, w.cpu_milli, w.memory_bytes, w.queues, w.executors, w.labels, w.versions, \
     w.host, w.registered_at, w.ended_at, h.last_beat, h.cpu_milli_free, h.memory_bytes_free, h.load, h.attempts, \
     w.restarting_until, w.cordoned_at, w.cordon_reason, w.cordon_drain, w.cordon_deadline \
     FROM workers w LEFT JOIN worker_heartbeats h ON h.worker = w.id AND h.session = w.session ORDER BY w.id";

/// The runtimes of live workers; reports of an earlier registration are ignored. Runners of earlier versions report them in the log, from
/// where they come into `workers`; a registration never has both.
const EQUIPMENT: &str = "SELECT w.id, w.executors, COALESCE(e.equipment, w.equipment) AS equipment \
     FROM workers w LEFT JOIN worker_equipment e ON e.worker = w.id AND e.session = w.session AND e.registered_at = w.registered_at \
     WHERE w.state = 'live' ORDER BY w.id";

#[derive(FromRow)]
struct EquipmentRow {
    id: String,
    executors: Vec<String>,
    equipment: Option<Json<ReportedEquipment>>,
}

#[derive(Default, Deserialize)]
struct ReportedEquipment {
    runtimes: BTreeMap<Token, Equipment>,
    images: BTreeMap<String, String>,
    platform: Option<String>,
}

impl EquipmentRow {
    fn view(self) -> Option<RuntimesOfWorker> {
        let ReportedEquipment {
            runtimes,
            images,
            platform,
        } = self.equipment.map(|Json(equipment)| equipment).unwrap_or_default();
        Some(RuntimesOfWorker {
            worker: self.id.parse().ok()?,
            runtimes,
            images,
            platform,
            process: self.executors.iter().any(|executor| executor == &ExecutorKind::Process.to_string()),
        })
    }
}

impl Tables {
    /// The runtimes of every live worker, by the worker's name.
    pub(crate) async fn equipment(&self) -> Result<Vec<RuntimesOfWorker>, ApiError> {
        let rows: Vec<EquipmentRow> = sqlx::query_as(EQUIPMENT).fetch_all(self.pool()?).await.map_err(unavailable)?;
        Ok(rows.into_iter().filter_map(EquipmentRow::view).collect())
    }

    /// Every worker, by name.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerView>, ApiError> {
        let rows: Vec<WorkerRow> = sqlx::query_as(WORKERS).fetch_all(self.pool()?).await.map_err(unavailable)?;
        Ok(rows.into_iter().filter_map(WorkerRow::view).collect())
    }
}

impl WorkerRow {
    /// `None` for a row that the projector did not write.
    fn view(self) -> Option<WorkerView> {
        let executor = |text: String| serde_json::from_value(serde_json::Value::String(text)).ok();
        let running = self.attempts.map_or_else(Vec::new, |Json(attempts)| attempts);
        Some(WorkerView {
            id: self.id.parse().ok()?,
            session: self.session.into(),
            state: self.state.into(),
            cpu_milli: small(self.cpu_milli),
            memory_bytes: unsigned(self.memory_bytes),
            queues: self.queues.iter().filter_map(|queue| queue.parse().ok()).collect(),
            executors: self.executors.into_iter().filter_map(executor).collect(),
            labels: self.labels.0,
            versions: self.versions.0,
            host: self.host,
            registered_at: self.registered_at,
            ended_at: self.ended_at,
            last_beat: self.last_beat,
            running: running.into_iter().map(|(job, attempt)| Running { job, attempt }).collect(),
            load: self.load,
            cpu_milli_free: self.cpu_milli_free.map(small),
            memory_bytes_free: self.memory_bytes_free.map(unsigned),
            cordoned_at: self.cordoned_at,
            cordon_reason: self.cordon_reason,
            drain: self.cordon_drain,
            drain_deadline: self.cordon_deadline,
            restarting_until: self.restarting_until,
        })
    }
}
