//! Who lives: watchers and workers, by their heartbeats; and how their clocks go.

use std::collections::BTreeMap;

use bus::{
    log::PRESENCE,
    subjects,
    worker::{ADVISORIES, Heartbeat, METADATA_OPEN},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, stream};
use model::{Finding, WorkerView};
use serde_json::{Value, json};

use super::{PATIENCE, broker::Broker, count, some, tables::Known};
use crate::app::App;

/// How old the last beat of one who lives may be: watchers beat twice a second, workers once.
const FRESH: (TimeDelta, TimeDelta) = (TimeDelta::seconds(3), TimeDelta::seconds(5));
/// How far a worker's clock may be off.
const SKEW: TimeDelta = TimeDelta::seconds(2);
/// Beats that are read at once.
const AT_ONCE: usize = 16;

/// Who lives.
#[derive(Debug, Default)]
pub(super) struct Presence {
    pub(super) live: usize,
    pub(super) findings: Vec<Finding>,
}

/// A beat that the broker has.
struct Seen {
    token: String,
    stored_at: DateTime<Utc>,
    beat: Heartbeat,
    /// Whether it says that it hears no advisories.
    deaf: bool,
}

pub(super) async fn look(app: &App, broker: &Broker, known: &Known) -> Presence {
    let Ok(Some(beats)) = tokio::time::timeout(PATIENCE, beats(app)).await else {
        let what = "the heartbeats cannot be read, so nobody can say who lives";
        let advice = format!("see whether stream {PRESENCE} answers: `nats stream info {PRESENCE}`");
        return Presence {
            live: 0,
            findings: vec![Finding::error("nats", what, advice)],
        };
    };
    let now = broker.now();
    let (watchers, workers): (Vec<&Seen>, Vec<&Seen>) = beats.iter().partition(|seen| subjects::is_watcher(&seen.token));
    let mut presence = Presence {
        live: match &known.workers {
            Some(workers) => workers.iter().filter(|worker| worker.state == "live").count(),
            None => workers.iter().filter(|seen| now - seen.stored_at < FRESH.1).count(),
        },
        findings: of_watchers(&watchers, now),
    };
    presence.findings.extend(of_workers(presence.live, known));
    presence.findings.extend(workers.iter().filter_map(|seen| leftovers(seen, now)));
    presence.findings.extend(clocks(&workers, now));
    presence
}

/// The last beat of each who beats.
async fn beats(app: &App) -> Option<Vec<Seen>> {
    let asked = json!({ "subjects_filter": subjects::BEATS });
    let info: Value = app.bus.js.request(format!("STREAM.INFO.{PRESENCE}"), &asked).await.ok()?;
    let held: BTreeMap<String, u64> = serde_json::from_value(info["state"]["subjects"].clone()).unwrap_or_default();
    let presence = app.bus.js.get_stream_no_info(PRESENCE).await.ok()?;
    let read = |subject: String| {
        let presence = &presence;
        async move {
            let message = presence.direct_get_last_for_subject(subject.as_str()).await.ok()?;
            let deaf = message.headers.get(ADVISORIES).is_some_and(|value| value.as_str() == "no");
            Some(Seen {
                token: subjects::parse_beat(&subject)?.to_owned(),
                stored_at: DateTime::from_timestamp(message.time.unix_timestamp(), message.time.nanosecond())?,
                // A marker of a beat that expired is none.
                beat: serde_json::from_slice(&message.payload).ok()?,
                deaf,
            })
        }
    };
    let seen = stream::iter(held.into_keys()).map(read).buffer_unordered(AT_ONCE);
    Some(seen.filter_map(std::future::ready).collect().await)
}

fn of_watchers(watchers: &[&Seen], now: DateTime<Utc>) -> Vec<Finding> {
    let live: Vec<&&Seen> = watchers.iter().filter(|seen| now - seen.stored_at < FRESH.0).collect();
    if live.is_empty() {
        let what = "no watcher runs: nobody notices a lost worker, releases held jobs, or tries failed ones again";
        let last = watchers.iter().map(|seen| seen.stored_at).max();
        return vec![Finding::error("watcher", what, "start one: `rgrid watcher`; two may run").since(last)];
    }
    if live.iter().all(|seen| seen.deaf) {
        let what = "no watcher has credentials of NATS's system account: a dead worker is noticed after 5 s, and not within 1 s";
        return vec![Finding::notice(
            "watcher",
            what,
            "give them to `rgrid watcher --nats-system`, where that second matters",
        )];
    }
    Vec::new()
}

/// Whether a worker's containers may reach the credentials of its machine.
fn metadata(worker: &WorkerView) -> Option<Finding> {
    let why = worker.versions.get(METADATA_OPEN).filter(|_| worker.state == "live")?;
    let what = format!(
        "containers of worker {} may reach its cloud's metadata service (169.254.169.254), because {why}",
        worker.id
    );
    let advice = "run it as root beside Docker, with iptables; or give the machine no role, or have its service ask for a token at one hop";
    Some(Finding::notice("workers", what, advice))
}

fn of_workers(live: usize, known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    if live == 0 {
        let what = "no worker is live: jobs are taken, and none runs";
        let last = known.workers.iter().flatten().filter_map(|worker| worker.ended_at).max();
        let advice = "start one with `rgrid runner`; `rgrid workers --all` shows those that were there";
        findings.push(Finding::error("workers", what, advice).since(last));
    }
    let lost = known
        .workers
        .iter()
        .flatten()
        .filter(|worker| worker.state == "lost" && worker.ended_at.is_some_and(|ended| Utc::now() - ended < TimeDelta::hours(1)));
    for worker in lost {
        findings.push(
            Finding::warning(
                "workers",
                format!("worker {} ({}) was lost; its jobs were given to others", worker.id, worker.host),
                "see whether the machine and its network are up, and start `rgrid runner` there again",
            )
            .since(worker.ended_at),
        );
    }
    findings.extend(known.workers.iter().flatten().filter_map(metadata));
    let cordoned = known
        .workers
        .iter()
        .flatten()
        .filter(|worker| worker.state == "live" && worker.cordoned_at.is_some());
    for worker in cordoned {
        let reason = worker
            .cordon_reason
            .as_ref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let what = format!("worker {} is {}, and takes no work{reason}", worker.id, worker.standing());
        let advice = format!("`rgrid uncordon {}`, when it may take work again", worker.id);
        findings.push(Finding::notice("workers", what, advice).since(worker.cordoned_at));
    }
    findings
}

/// What a worker that lives cannot remove of earlier attempts.
fn leftovers(seen: &Seen, now: DateTime<Utc>) -> Option<Finding> {
    let left = Some(&seen.beat.leftovers).filter(|left| !left.is_empty() && now - seen.stored_at < FRESH.1)?;
    let what = format!("worker {} cannot remove what attempts left there: {}", seen.token, left.join("; "));
    let advice = "on that machine, unmount what is mounted there (`umount`), or remove by hand what the runner may not remove;                   it tries again every minute, and jobs run meanwhile";
    Some(Finding::warning("leftovers", what, advice))
}

fn clocks(workers: &[&Seen], now: DateTime<Utc>) -> Option<Finding> {
    let off: Vec<String> = workers
        .iter()
        .filter(|seen| now - seen.stored_at < FRESH.1)
        .filter_map(|seen| {
            let skew = seen.beat.time - seen.stored_at;
            let seconds = format!("{:.1} s", skew.abs().as_seconds_f64());
            let which = if skew > TimeDelta::zero() { "ahead" } else { "behind" };
            (skew.abs() > SKEW).then(|| format!("{} {seconds} {which}", seen.token))
        })
        .collect();
    (!off.is_empty()).then(|| {
        Finding::warning(
            "clocks",
            format!(
                "{} off NATS's: {}",
                if off.len() == 1 {
                    "a worker's clock is".to_owned()
                } else {
                    count(off.len() as u64, "worker's clock") + " are"
                },
                some(&off, 5)
            ),
            "set them by NTP (chrony, systemd-timesyncd); times in histories are wrong until then, and nothing else is",
        )
    })
}
