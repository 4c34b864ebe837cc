//! NATS and its streams.

use async_nats::connection::State as Connection;
use bus::log::{
    EVENTS, INBOX,
    connect::{MIN_SERVER, version},
    inspect::{Inspected, inspect},
};
use chrono::{DateTime, Utc};
use model::Finding;
use serde_json::Value;

use super::PATIENCE;
use crate::{app::App, error::chain};

/// Above how many hundredths of its bound a stream is said to fill up, and to be full.
const FILLING: (u64, u64) = (80, 90);

/// A NATS that answers.
pub(super) struct Broker {
    streams: Vec<Inspected>,
    pub(super) findings: Vec<Finding>,
}

impl Broker {
    /// The stream of all events.
    pub(super) fn log(&self) -> Option<&Inspected> {
        self.stream(EVENTS)
    }

    /// One of the streams.
    pub(super) fn stream(&self, name: &str) -> Option<&Inspected> {
        self.streams.iter().find(|stream| stream.stream == name)
    }

    /// The last event of the log.
    pub(super) fn last_sequence(&self) -> u64 {
        self.log().map_or(0, |log| log.number("/state/last_seq"))
    }

    /// The server's clock, by which messages are stored.
    pub(super) fn now(&self) -> DateTime<Utc> {
        let told = self
            .streams
            .iter()
            .find_map(|stream| stream.info.as_ref()?["ts"].as_str()?.parse().ok());
        told.unwrap_or_else(Utc::now)
    }
}

/// Asks NATS about itself and its streams.
pub(super) async fn look(app: &App) -> Result<Broker, Finding> {
    const OTHERS: &str = "what runs goes on and waits for it with its results; nothing that was acknowledged is lost";
    if app.bus.client.connection_state() != Connection::Connected {
        let what = "the API has no connection to NATS";
        let advice = format!("start nats-server, and look at its log; check --nats and its credentials; {OTHERS}");
        return Err(Finding::error("nats", what, advice));
    }
    let why = match tokio::time::timeout(PATIENCE, inspect(&app.bus.js)).await {
        Ok(Ok(streams)) => {
            let mut findings: Vec<Finding> = streams.iter().flat_map(|stream| of_stream(stream, app.replicas)).collect();
            findings.extend(too_old(&app.bus.client.server_info().version));
            return Ok(Broker { streams, findings });
        }
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    let what = format!("NATS is connected, and its JetStream does not answer: {why}");
    let advice = format!("see whether nats-server hangs (its disk, its memory), and whether a cluster has enough servers; {OTHERS}");
    Err(Finding::error("nats", what, advice))
}

/// Whether the log has every event that was ever stored in it, as far as anybody has seen; `tables`: the last one that they hold.
pub(super) async fn whole(app: &App, broker: &Broker, tables: u64) -> Option<Finding> {
    let log = broker.log().filter(|log| log.info.is_some())?;
    // Where the marks do not answer, another finding says why.
    let marks = tokio::time::timeout(PATIENCE, app.marks.log_seen()).await;
    let seen = marks.ok().and_then(Result::ok).unwrap_or(0).max(tables);
    let gap = log.extent().check(seen).err()?;
    Some(Finding::error(
        "log",
        gap.to_string(),
        format!(
            "what the missing events said is not known, so nothing is removed from the store until they are back: restore them from a \
             backup (`nats stream restore {EVENTS}`); jobs go on meanwhile"
        ),
    ))
}

fn too_old(found: &str) -> Option<Finding> {
    let (major, minor, patch) = MIN_SERVER;
    version(found).is_none_or(|found| found < MIN_SERVER).then(|| {
        Finding::error(
            "nats",
            format!("nats-server is version {found}, and rgrid needs {major}.{minor}.{patch} or newer"),
            "get one at https://github.com/nats-io/nats-server/releases",
        )
    })
}

fn of_stream(stream: &Inspected, replicas: u8) -> Vec<Finding> {
    let name = &stream.stream;
    let Some(info) = &stream.info else {
        let advice =
            format!("restart the API, which makes it; if it was deleted, restore it from a backup first: `nats stream restore {name}`");
        return vec![Finding::error("streams", format!("stream {name} is not there"), advice)];
    };
    let mut findings = Vec::new();
    if let Some((field, found, wanted)) = &stream.mismatch {
        findings.push(Finding::error(
            "streams",
            format!("stream {name} is not as rgrid needs it: `{field}` is {found} and must be {wanted}"),
            format!("change it with `nats stream edit {name}`"),
        ));
    }
    // The others drop what is oldest, and are meant to be full.
    if let Some(percent) = stream.percent_full().filter(|_| [EVENTS, INBOX].contains(&name.as_str())) {
        let what = format!("stream {name} holds {percent} % of the bytes that it may");
        let advice = if name == EVENTS {
            "see how it grows (`rgrid log`), and raise its bound: `rgrid log --bound …`".to_owned()
        } else {
            format!("raise its bound: `nats stream edit {name} --max-bytes=…`")
        };
        if percent >= FILLING.1 {
            let advice = format!(
                "{advice}; above {} %, no new jobs are taken, so that those which run can end",
                FILLING.1
            );
            findings.push(Finding::error("streams", what, advice));
        } else if percent >= FILLING.0 {
            findings.push(Finding::warning("streams", what, advice));
        }
    }
    let kept = stream.number("/config/num_replicas");
    if kept < u64::from(replicas) {
        findings.push(Finding::warning(
            "streams",
            format!("stream {name} is kept by {kept} of the {replicas} servers that it is to be kept by"),
            format!("`nats stream edit {name} --replicas={replicas}`"),
        ));
    }
    findings.extend(behind(name, &info["cluster"]));
    findings
}

/// Replicas that do not follow.
fn behind(stream: &str, cluster: &Value) -> Option<Finding> {
    let lost: Vec<String> = cluster["replicas"]
        .as_array()?
        .iter()
        .filter(|peer| peer["offline"] == true || peer["current"] == false)
        .map(|peer| peer["name"].as_str().unwrap_or("?").to_owned())
        .collect();
    (!lost.is_empty()).then(|| {
        Finding::warning(
            "streams",
            format!(
                "{} of the servers that keep stream {stream} is away or behind: {}",
                lost.len(),
                lost.join(", ")
            ),
            "start it again; one more that is lost now stops the log",
        )
    })
}
