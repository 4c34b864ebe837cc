//! Checks which watchers and workers are live, by their heartbeats, and how far their clocks are off.

use std::collections::BTreeMap;

use bus::{
    log::PRESENCE,
    subjects,
    worker::{ADVISORIES, Heartbeat, METADATA_OPEN},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, stream};
use model::{Finding, WorkerState, WorkerView};
use serde_json::{Value, json};

use super::{PATIENCE, broker::Broker, count, some, tables::Known};
use crate::app::App;

/// How old the last heartbeat of a live watcher and of a live worker may be: watchers send two a second, workers one.
const FRESH_FOR: (TimeDelta, TimeDelta) = (TimeDelta::seconds(3), TimeDelta::seconds(5));
/// How far a worker's clock may be off.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(2);
/// Heartbeats that are read at the same time.
const AT_ONCE: usize = 16;

/// Which workers are live, and what is wrong with them and the watchers.
#[derive(Debug, Default)]
pub(super) struct Presence {
    pub(super) live: usize,
    pub(super) findings: Vec<Finding>,
}

/// The last heartbeat of a worker or a watcher.
struct LastBeat {
    token: String,
    stored_at: DateTime<Utc>,
    beat: Heartbeat,
    /// Whether the sender receives no advisories of the server.
    without_advisories: bool,
}

pub(super) async fn look(app: &App, broker: &Broker, known: &Known) -> Presence {
    let Ok(Some(beats)) = tokio::time::timeout(PATIENCE, beats(app)).await else {
        let what = "cannot read the heartbeats, so it is not known which workers are live";
        let advice = format!("check whether stream {PRESENCE} answers: `nats stream info {PRESENCE}`");
        return Presence {
            live: 0,
            findings: vec![Finding::error("nats", what, advice)],
        };
    };
    let now = broker.now();
    let (watchers, workers): (Vec<&LastBeat>, Vec<&LastBeat>) = beats.iter().partition(|seen| subjects::is_watcher(&seen.token));
    let mut presence = Presence {
        live: match &known.workers {
            Some(workers) => workers.iter().filter(|worker| worker.state == WorkerState::Live).count(),
            None => workers.iter().filter(|seen| now - seen.stored_at < FRESH_FOR.1).count(),
        },
        findings: of_watchers(&watchers, now),
    };
    presence.findings.extend(of_workers(presence.live, known));
    presence.findings.extend(workers.iter().filter_map(|seen| leftovers(seen, now)));
    presence.findings.extend(clocks(&workers, now));
    presence
}

/// The last heartbeat of every worker and watcher.
async fn beats(app: &App) -> Option<Vec<LastBeat>> {
    let asked = json!({ "subjects_filter": subjects::BEATS });
    let info: Value = app.bus.js.request(format!("STREAM.INFO.{PRESENCE}"), &asked).await.ok()?;
    let held: BTreeMap<String, u64> = serde_json::from_value(info["state"]["subjects"].clone()).unwrap_or_default();
    let presence = app.bus.js.get_stream_no_info(PRESENCE).await.ok()?;
    let read = |subject: String| {
        let presence = &presence;
        async move {
            let message = presence.direct_get_last_for_subject(subject.as_str()).await.ok()?;
            let without_advisories = message.headers.get(ADVISORIES).is_some_and(|value| value.as_str() == "no");
            Some(LastBeat {
                token: subjects::parse_beat(&subject)?.to_owned(),
                stored_at: DateTime::from_timestamp(message.time.unix_timestamp(), message.time.nanosecond())?,
                // The marker of an expired heartbeat is not a heartbeat.
                beat: serde_json::from_slice(&message.payload).ok()?,
                without_advisories,
            })
        }
    };
    let seen = stream::iter(held.into_keys()).map(read).buffer_unordered(AT_ONCE);
    Some(seen.filter_map(std::future::ready).collect().await)
}

fn of_watchers(watchers: &[&LastBeat], now: DateTime<Utc>) -> Vec<Finding> {
    let live: Vec<&&LastBeat> = watchers.iter().filter(|seen| now - seen.stored_at < FRESH_FOR.0).collect();
    if live.is_empty() {
        let what = "no watcher runs: lost workers are not noticed, held jobs are not released, and failed jobs are not retried";
        let last = watchers.iter().map(|seen| seen.stored_at).max();
        return vec![Finding::error("watcher", what, "start one: `rgrid watcher`; two may run").since(last)];
    }
    if live.iter().all(|seen| seen.without_advisories) {
        let what = "no watcher has credentials of NATS's system account: a lost worker is noticed after 5 s instead of within 1 s";
        return vec![Finding::notice(
            "watcher",
            what,
            "if the difference matters, pass them to `rgrid watcher --nats-system`",
        )];
    }
    Vec::new()
}

/// Whether containers of a worker may reach the credentials of its machine.
fn metadata(worker: &WorkerView) -> Option<Finding> {
    let why = worker.versions.get(METADATA_OPEN).filter(|_| worker.state == WorkerState::Live)?;
    let what = format!(
        "containers of worker {} may reach its cloud's metadata service (169.254.169.254), because {why}",
        worker.id
    );
    let advice =
        "run the worker as root on Docker's host, with iptables; or give the machine no role; or limit its metadata service to one hop";
    Some(Finding::notice("workers", what, advice))
}

fn of_workers(live: usize, known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    if live == 0 {
        let what = "no worker is live: jobs are accepted, but none runs";
        let last = known.workers.iter().flatten().filter_map(|worker| worker.ended_at).max();
        let advice = "start one with `rgrid runner`; `rgrid workers --all` shows earlier workers";
        findings.push(Finding::error("workers", what, advice).since(last));
    }
    let lost = known.workers.iter().flatten().filter(|worker| {
        worker.state == WorkerState::Lost && worker.ended_at.is_some_and(|ended| Utc::now() - ended < TimeDelta::hours(1))
    });
    for worker in lost {
        findings.push(
            Finding::warning(
                "workers",
                format!("worker {} ({}) was lost; its jobs were rescheduled", worker.id, worker.host),
                "check the machine and its network, and start `rgrid runner` there again",
            )
            .since(worker.ended_at),
        );
    }
    findings.extend(known.workers.iter().flatten().filter_map(metadata));
    let cordoned = known
        .workers
        .iter()
        .flatten()
        .filter(|worker| worker.state == WorkerState::Live && worker.cordoned_at.is_some());
    for worker in cordoned {
        let reason = worker
            .cordon_reason
            .as_ref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let what = format!("worker {} is {} and takes no new work{reason}", worker.id, worker.status());
        let advice = format!("`rgrid uncordon {}` lets it take work again", worker.id);
        findings.push(Finding::notice("workers", what, advice).since(worker.cordoned_at));
    }
    findings
}

/// Files of earlier attempts that a live worker cannot remove.
fn leftovers(seen: &LastBeat, now: DateTime<Utc>) -> Option<Finding> {
    let left = Some(&seen.beat.leftovers).filter(|left| !left.is_empty() && now - seen.stored_at < FRESH_FOR.1)?;
    let what = format!("worker {} cannot remove files of earlier attempts: {}", seen.token, left.join("; "));
    let advice = "on that machine, unmount what is mounted there (`umount`), or remove the files by hand; the worker retries every minute, and runs jobs meanwhile";
    Some(Finding::warning("leftovers", what, advice))
}

fn clocks(workers: &[&LastBeat], now: DateTime<Utc>) -> Option<Finding> {
    let off: Vec<String> = workers
        .iter()
        .filter(|seen| now - seen.stored_at < FRESH_FOR.1)
        .filter_map(|seen| {
            let skew = seen.beat.time - seen.stored_at;
            let seconds = format!("{:.1} s", skew.abs().as_seconds_f64());
            let which = if skew > TimeDelta::zero() { "ahead" } else { "behind" };
            (skew.abs() > SKEW_MAX).then(|| format!("{} {seconds} {which}", seen.token))
        })
        .collect();
    (!off.is_empty()).then(|| {
        Finding::warning(
            "clocks",
            format!(
                "{} different from NATS's: {}",
                if off.len() == 1 {
                    "a worker's clock is".to_owned()
                } else {
                    count(off.len() as u64, "worker's clock") + " are"
                },
                some(&off, 5)
            ),
            "synchronise them by NTP (chrony, systemd-timesyncd); until then, only the times in histories are wrong",
        )
    })
}
