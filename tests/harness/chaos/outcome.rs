//! The end of a run: everything that was left behind is gathered, checked, and written down.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bus::{
    ids::JobId,
    job::{Job, State},
    log::connect::Bus,
    output::manifest::Manifest,
};
use serde_json::{Value, json};
use store::Files;

use super::{
    check::{Evidence, Kind, Verdict, check},
    inject::Harms,
    ledger::Ledger,
    load::Load,
    log, measure,
    observer::Observer,
    rig::Rig,
    trace,
};
use crate::grid::rgrid;

/// How long jobs may take to end once nothing harms the grid any more.
const PATIENCE: Duration = Duration::from_secs(180);
/// The largest output of a chaos job, and the largest list of outputs.
const MAX_BYTES: usize = 1 << 20;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// From which seed.
    pub seed: u64,
    /// What was left behind.
    pub evidence: Evidence,
    /// What the checker found.
    pub verdict: Verdict,
    /// What could not be done here.
    pub skipped: Vec<String>,
    /// Outputs that were read and compared.
    pub outputs: usize,
}

impl Outcome {
    /// Waits for every job's end, gathers, and checks. The grid must be whole again.
    pub async fn gather(name: &str, seed: u64, rig: &mut Rig, load: &Load, observer: &Observer, harms: Harms) -> Result<Self> {
        let acknowledged = load.acknowledged();
        let all = |ledger: &Ledger| {
            let ended = |job: &JobId| ledger.jobs.get(job).is_some_and(|tale| tale.ended().is_some());
            let all = acknowledged.iter().all(|(job, _)| ended(job));
            (all && ledger.ended() == ledger.jobs.len()).then_some(())
        };
        // Those that did not are found by the checker, by name.
        let _all_ended = observer.until("every job ended", PATIENCE, all).await;
        let bus = rig.bus("checker").await?;
        let (events, reader) = log::all(&bus.js).await?;
        let evidence = Evidence {
            acknowledged,
            ledger: Ledger::of(&events),
            traces: trace::read(&rig.traces())?,
            faults: harms.faults,
        };
        let mut verdict = check(&evidence);
        for fallen in rig.fallen() {
            verdict.add(1, Kind::Derived, None, fallen);
        }
        let outputs = outputs(&bus, reader.jobs().values(), &mut verdict).await?;
        tables(rig, &mut verdict).await?;
        Ok(Self {
            name: name.to_owned(),
            seed,
            evidence,
            verdict,
            skipped: harms.skipped,
            outputs,
        })
    }

    /// Fails if a promise was broken.
    pub fn assert(&self) -> Result<()> {
        if self.verdict.violations.is_empty() {
            return Ok(());
        }
        let violations = self.verdict.violations.iter().take(30).map(ToString::to_string).collect::<Vec<_>>();
        bail!(
            "{} (seed {}): {} broken promises:\n{}",
            self.name,
            self.seed,
            self.verdict.violations.len(),
            violations.join("\n")
        )
    }

    /// The summary and the table.
    #[must_use]
    pub fn text(&self) -> String {
        let evidence = &self.evidence;
        let longest = self
            .verdict
            .overlaps
            .iter()
            .map(|overlap| overlap.micros / 1000)
            .max()
            .unwrap_or_default();
        let mut text = format!(
            "== {} (seed {}): {} acknowledged, {} in the log, {} traces; ends {:?}; {} attempts came to a \
             result after they were given up; {} overlaps, the longest {longest} ms; {} outputs compared; {} broken promises\n",
            self.name,
            self.seed,
            evidence.acknowledged.len(),
            evidence.ledger.jobs.len(),
            evidence.traces.len(),
            self.verdict.ends,
            self.verdict.unwanted,
            self.verdict.overlaps.len(),
            self.outputs,
            self.verdict.violations.len(),
        );
        for skipped in &self.skipped {
            text.push_str(&format!("SKIPPED: {skipped}\n"));
        }
        text.push_str(&measure::table(&measure::rows(evidence, &self.verdict)));
        text
    }

    /// The same, for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let violations = self.verdict.violations.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ends = self.verdict.ends.iter().map(|(end, count)| (format!("{end:?}"), *count));
        json!({
            "name": self.name,
            "seed": self.seed,
            "acknowledged": self.evidence.acknowledged.len(),
            "jobs": self.evidence.ledger.jobs.len(),
            "traces": self.evidence.traces.len(),
            "ends": ends.collect::<std::collections::BTreeMap<_, _>>(),
            "late_words_in_the_log": self.verdict.refused,
            "results_of_attempts_given_up": self.verdict.unwanted,
            "overlaps_ms": self.verdict.overlaps.iter().map(|overlap| overlap.micros / 1000).collect::<Vec<_>>(),
            "outputs": self.outputs,
            "skipped": self.skipped,
            "violations": violations,
            "faults": self.evidence.faults,
            "rows": measure::rows(&self.evidence, &self.verdict),
        })
    }
}

/// Promise 4: every output that a committed manifest names is there, whole, and of the attempt that committed.
async fn outputs(bus: &Bus, jobs: impl Iterator<Item = &Job>, verdict: &mut Verdict) -> Result<usize> {
    let files = Files::open(&"nats://".parse()?, Some(bus.js.clone())).await?;
    let mut count = 0;
    for job in jobs.filter(|job| job.state() == State::Succeeded) {
        let (Some(finished), Some(attempt)) = (job.finished(), job.attempts.last()) else {
            continue;
        };
        let wants = job.spec.command.get(4).is_some();
        let Some(listed) = &finished.manifest else {
            if wants {
                verdict.add(
                    4,
                    Kind::Derived,
                    Some(job.id),
                    "it succeeded without the output that it wrote".to_owned(),
                );
            }
            continue;
        };
        let manifest: Result<Manifest> = async { Ok(serde_json::from_slice(&files.get_bytes(&listed.sha256, MAX_BYTES).await?)?) }.await;
        let whole = match manifest {
            Ok(manifest) => compare(&files, &manifest, &format!("{} {}\n", job.id, attempt.number), wants).await,
            Err(error) => Err(error),
        };
        match whole {
            Ok(()) => count += 1,
            Err(error) => verdict.add(4, Kind::Derived, Some(job.id), format!("its outputs are not whole: {error:#}")),
        }
    }
    Ok(count)
}

async fn compare(files: &Files, manifest: &Manifest, expected: &str, wants: bool) -> Result<()> {
    ensure!(
        manifest.outputs.len() == usize::from(wants),
        "{} files are listed",
        manifest.outputs.len()
    );
    for file in &manifest.outputs {
        // Reading verifies the hash.
        let content = files.get_bytes(&file.sha256, MAX_BYTES).await?;
        ensure!(
            content == expected.as_bytes(),
            "{} holds {content:?}, and not {expected:?}",
            file.path
        );
    }
    Ok(())
}

/// Waits until the tables show all that the log holds.
///
/// # Errors
/// If that takes too long.
pub async fn caught_up(rig: &Rig) -> Result<()> {
    rig.until("the tables have caught up", async || {
        let projection = rig.get("projection").await.ok()?;
        (projection["sequence"].as_u64()? >= projection["last"].as_u64()?).then_some(())
    })
    .await
}

/// Promise 5: the tables catch up, and are what a rebuild makes of the log.
async fn tables(rig: &Rig, verdict: &mut Verdict) -> Result<()> {
    caught_up(rig).await?;
    let output = Command::new(rgrid())
        .args(["projector", "rebuild", "--json"])
        .env("RGRID_NATS", rig.nats_url())
        .env("RGRID_DATABASE_URL", rig.database_url())
        .output()?;
    let said: Value = serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    if said["identical"] != true {
        verdict.add(5, Kind::Derived, None, format!("the tables are not what the log says: {said}"));
    }
    Ok(())
}

/// Writes the reports of several runs to a file.
pub fn write(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let reports = outcomes.iter().map(Outcome::json).collect::<Vec<_>>();
    Ok(std::fs::write(path, serde_json::to_vec_pretty(&reports)?)?)
}
