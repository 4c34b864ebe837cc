//! `GET /v1/doctor`: what is wrong, since when, and what to do.
//!
//! Every part is checked at once and has a time limit of its own, so that one that does not answer does not hide the others.

mod broker;
mod inbox;
mod presence;
mod queues;
mod tables;
mod undeliverable;

use std::time::Duration;

use axum::{Json, extract::State};
use bus::ids::Digest;
use model::{Diagnosis, Finding, Summary};

use self::{broker::Broker, tables::Known};
use crate::{
    app::{App, Shared},
    error::{ApiError, chain},
    http::extract::Query,
};

/// How long one part may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// `GET /v1/doctor`
pub(crate) async fn doctor(State(app): State<Shared>, query: Query) -> Result<Json<Diagnosis>, ApiError> {
    query.none()?;
    Ok(Json(Box::pin(diagnose(&app)).await))
}

async fn diagnose(app: &App) -> Diagnosis {
    let mut summary = Summary {
        replicas: app.replicas,
        durability: durability(app.replicas).to_owned(),
        ..Summary::default()
    };
    let (broker, known, mut findings) = tokio::join!(broker::look(app), tables::look(app), store(app));
    let known = known.unwrap_or_else(|found| {
        findings.extend(found);
        Known::default()
    });
    findings.extend(known.findings.iter().cloned());
    match broker {
        Ok(broker) => {
            summarize(&mut summary, app, &broker);
            findings.extend(broker.findings.iter().cloned());
            findings.extend(broker::missing_events(app, &broker, known.sequence.unwrap_or(0)).await);
            let (presence, inbox, undeliverable, lag) = tokio::join!(
                presence::look(app, &broker, &known),
                inbox::look(app, &broker),
                undeliverable::look(app, &broker),
                tables::lag(app, &known, broker.last_sequence()),
            );
            // After the workers, which the findings on queues refer to.
            let queues = queues::look(app, &known).await;
            summary.workers = Some(presence.live);
            let single = lag.into_iter().chain(undeliverable).collect();
            findings.extend([presence.findings, inbox, single, queues].into_iter().flatten());
        }
        Err(finding) => findings.push(finding),
    }
    summary.running = known.jobs.map(|jobs| jobs.running);
    summary.waiting = known.jobs.map(|jobs| jobs.waiting);
    findings.sort_by_key(|finding| finding.severity);
    Diagnosis { findings, summary }
}

/// What the log survives with this many copies (see nats/).
const fn durability(replicas: u8) -> &'static str {
    match replicas {
        0..=2 => {
            "one nats-server stores the log: if its process is killed, nothing is lost; a power cut can lose what is younger than its \
             sync_interval, and a lost disk loses everything"
        }
        3 | 4 => "three nats-servers store the log: any one of them may be lost, with its disk",
        5.. => "five nats-servers store the log: any two of them may be lost, with their disks",
    }
}

fn summarize(summary: &mut Summary, app: &App, broker: &Broker) {
    summary.nats = Some(app.bus.client.server_info().version);
    if let Some(log) = broker.log() {
        summary.events = Some(log.number("/state/messages"));
        summary.log_bytes = Some((log.number("/state/bytes"), log.number("/config/max_bytes")));
    }
}

/// Whether the file store answers.
async fn store(app: &App) -> Vec<Finding> {
    let why = match tokio::time::timeout(PATIENCE, app.files.missing(&[Digest::of(b"")])).await {
        Ok(Ok(_)) => return Vec::new(),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    vec![Finding::error(
        "store",
        format!("cannot reach the file store: {why}"),
        "start it, or check --store and its credentials; until then, jobs with files are refused, and results wait on their workers",
    )]
}

/// `1 job`, `2 jobs`.
fn count(number: u64, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

/// The first `most` names, and how many more there are.
fn some(names: &[String], most: usize) -> String {
    let mut text = names.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > most {
        text.push_str(&format!(" and {} more", names.len() - most));
    }
    text
}
