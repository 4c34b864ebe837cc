//! Jobs for the grid under test, handed in by both doors, each until it is acknowledged.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    ids::{JobId, default_token},
    log::connect::Bus,
    subjects,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Micros, now, observer::Observer, rig::Door};
use crate::grid::built;

/// Jobs that are handed in together.
const BATCH: usize = 10;
/// For how long one batch is handed in again and again: longer than any fault.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

/// What jobs to make.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// How long a job runs, in milliseconds: from, and below.
    pub length_ms: (u64, u64),
    /// How many jobs are to be under way at once.
    pub level: usize,
    /// How many there must be in all, at least.
    pub least: usize,
    /// Whether every third one leaves an output, and every tenth fails.
    pub various: bool,
}

/// Hands jobs in.
#[derive(Debug, Clone)]
pub struct Load {
    door: Option<Door>,
    bus: Bus,
    traces: String,
    seed: u64,
    made: Arc<Mutex<Made>>,
}

#[derive(Debug, Default)]
struct Made {
    count: usize,
    acknowledged: Vec<(JobId, Micros)>,
}

impl Load {
    /// Hands in by the API's door, where there is one, and by the inbox.
    #[must_use]
    pub fn new(door: Option<Door>, bus: Bus, traces: &Path, seed: u64) -> Self {
        let (traces, made) = (traces.display().to_string(), Arc::default());
        Self {
            door,
            bus,
            traces,
            seed,
            made,
        }
    }

    fn made<T>(&self, with: impl FnOnce(&mut Made) -> T) -> T {
        with(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was acknowledged until now, and when.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<(JobId, Micros)> {
        self.made(|made| made.acknowledged.clone())
    }

    /// How many jobs were made, acknowledged or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.made(|made| made.count)
    }

    /// A job that leaves traces. Its key makes it the same job, however often it is handed in.
    fn submission(&self, number: usize, recipe: &Recipe) -> (JobId, Value) {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let key = format!("chaos-{}-{number}", self.seed);
        let length = random.random_range(recipe.length_ms.0..recipe.length_ms.1);
        let code = if recipe.various && number % 10 == 9 { "3" } else { "0" };
        let ticker = built("ticker").display().to_string();
        let mut command = vec![ticker, self.traces.clone(), length.to_string(), code.to_owned()];
        if recipe.various && number.is_multiple_of(3) {
            command.push("result.txt".to_owned());
        }
        let id = JobId::of_key(&default_token(), &key);
        // A job may well lose more workers here than it would in a year elsewhere.
        (
            id,
            json!({ "command": command, "executor": "process", "key": key, "max_losses": 50 }),
        )
    }

    /// Hands in so many more, by one door, and returns when each is acknowledged.
    ///
    /// # Errors
    /// If that takes longer than any fault lasts, or they are refused.
    pub async fn submit(&self, how_many: usize, recipe: &Recipe, over_nats: bool) -> Result<Vec<JobId>> {
        let first = self.made(|made| {
            made.count += how_many;
            made.count - how_many
        });
        let jobs = (first..first + how_many)
            .map(|number| self.submission(number, recipe))
            .collect::<Vec<_>>();
        self.hand_in(jobs, over_nats).await
    }

    /// Hands in a job for each of these shell scripts: it does what the script says, leaves its traces, and fails.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn submit_scripts(&self, scripts: &[&str]) -> Result<Vec<JobId>> {
        let first = self.made(|made| {
            made.count += scripts.len();
            made.count - scripts.len()
        });
        let ticker = built("ticker").display().to_string();
        let jobs = scripts.iter().zip(first..).map(|(script, number)| {
            let key = format!("chaos-{}-{number}", self.seed);
            let script = format!("{script}\nexec \"$0\" \"$@\"");
            let command = ["/bin/sh", "-c", &script, &ticker, &self.traces, "300", "3"];
            let submission = json!({ "command": command, "executor": "process", "key": key, "max_losses": 50 });
            (JobId::of_key(&default_token(), &key), submission)
        });
        self.hand_in(jobs.collect(), false).await
    }

    async fn hand_in(&self, jobs: Vec<(JobId, Value)>, over_nats: bool) -> Result<Vec<JobId>> {
        let deadline = Instant::now() + PATIENCE;
        let mut waiting = jobs.clone();
        while !waiting.is_empty() {
            let said = match (&self.door, over_nats) {
                (Some(door), false) => self.by_door(door, &waiting).await,
                _ => self.by_inbox(&waiting).await,
            };
            match said {
                Ok(acknowledged) => waiting.retain(|(id, _)| !acknowledged.contains(id)),
                Err(error) => {
                    ensure!(Instant::now() < deadline, "{} jobs were not acknowledged: {error:#}", waiting.len());
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(jobs.into_iter().map(|(id, _)| id).collect())
    }

    async fn by_door(&self, door: &Door, jobs: &[(JobId, Value)]) -> Result<Vec<JobId>> {
        let submissions: Vec<&Value> = jobs.iter().map(|(_, submission)| submission).collect();
        let answer = door.submit(&json!(submissions)).await?;
        let at = now();
        let answers = answer["jobs"].as_array().context("a list of answers")?;
        let mut acknowledged = Vec::new();
        for ((id, _), answer) in jobs.iter().zip(answers) {
            if let Some(said) = answer["id"].as_str() {
                ensure!(said == id.to_string(), "its key makes it {id}, and the API says {said}");
                acknowledged.push(*id);
            }
        }
        ensure!(!acknowledged.is_empty(), "none was taken: {answer}");
        self.note(&acknowledged, at);
        Ok(acknowledged)
    }

    async fn by_inbox(&self, jobs: &[(JobId, Value)]) -> Result<Vec<JobId>> {
        let subject = subjects::submit(&default_token(), &default_token());
        let mut acknowledged = Vec::new();
        for (id, submission) in jobs {
            let published = self.bus.js.publish(subject.clone(), serde_json::to_vec(submission)?.into()).await;
            let stored = match published {
                Ok(waiting) => waiting.await.map(drop),
                Err(error) => Err(error),
            };
            match stored {
                Ok(()) => {
                    self.note(&[*id], now());
                    acknowledged.push(*id);
                }
                Err(error) if acknowledged.is_empty() => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(acknowledged)
    }

    fn note(&self, ids: &[JobId], at: Micros) {
        self.made(|made| made.acknowledged.extend(ids.iter().map(|id| (*id, at))));
    }

    /// Keeps so many jobs under way until told to stop, and until there were enough; by both doors in turn.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn keep_up(&self, recipe: &Recipe, observer: &Observer, stop: CancellationToken) -> Result<()> {
        let mut turn = 0_u64;
        while !stop.is_cancelled() || self.count() < recipe.least {
            let under_way = self.count().saturating_sub(observer.look(super::ledger::Ledger::ended));
            let room = recipe.level.saturating_sub(under_way).min(BATCH);
            if room == 0 {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            turn += 1;
            self.submit(room, recipe, turn.is_multiple_of(2)).await?;
        }
        Ok(())
    }
}
