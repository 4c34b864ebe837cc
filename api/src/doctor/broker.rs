//! Checks NATS and its streams.

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

/// Above how many percent of its bound a stream is a warning, and an error.
const FULL_PERCENT: (u64, u64) = (80, 90);

/// What NATS says about itself.
pub(super) struct Broker {
    streams: Vec<Inspected>,
    pub(super) findings: Vec<Finding>,
}

impl Broker {
    /// The stream of all events.
    pub(super) fn log(&self) -> Option<&Inspected> {
        self.stream(EVENTS)
    }

    /// A stream by its name.
    pub(super) fn stream(&self, name: &str) -> Option<&Inspected> {
        self.streams.iter().find(|stream| stream.stream == name)
    }

    /// The last event of the log.
    pub(super) fn last_sequence(&self) -> u64 {
        self.log().map_or(0, |log| log.number("/state/last_seq"))
    }

    /// The time by the server's clock, which also stamps the messages.
    pub(super) fn now(&self) -> DateTime<Utc> {
        let reported = self
            .streams
            .iter()
            .find_map(|stream| stream.info.as_ref()?["ts"].as_str()?.parse().ok());
        reported.unwrap_or_else(Utc::now)
    }
}

/// Asks NATS about itself and its streams.
pub(super) async fn look(app: &App) -> Result<Broker, Finding> {
    const MEANWHILE: &str = "running jobs go on, and their results wait for NATS; nothing that was acknowledged is lost";
    if app.bus.client.connection_state() != Connection::Connected {
        let what = "the API has no connection to NATS";
        let advice = format!("start nats-server, and read its log; check --nats and its credentials; {MEANWHILE}");
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
    let what = format!("NATS is connected, but JetStream does not answer: {why}");
    let advice = format!("check whether nats-server hangs (disk, memory), and whether enough servers of a cluster run; {MEANWHILE}");
    Err(Finding::error("nats", what, advice))
}

/// Events that were stored once, and are missing from the log. `tables` is the last event that the tables hold.
pub(super) async fn missing_events(app: &App, broker: &Broker, tables: u64) -> Option<Finding> {
    let log = broker.log().filter(|log| log.info.is_some())?;
    // If the marks do not answer, another finding says why.
    let marks = tokio::time::timeout(PATIENCE, app.marks.log_seen()).await;
    let seen = marks.ok().and_then(Result::ok).unwrap_or(0).max(tables);
    let gap = log.extent().check(seen).err()?;
    Some(Finding::error(
        "log",
        gap.to_string(),
        format!(
            "restore the missing events from a backup (`nats stream restore {EVENTS}`); until then, nothing is removed from the store, and \
             jobs go on"
        ),
    ))
}

fn too_old(found: &str) -> Option<Finding> {
    let (major, minor, patch) = MIN_SERVER;
    version(found).is_none_or(|found| found < MIN_SERVER).then(|| {
        Finding::error(
            "nats",
            format!("nats-server is version {found}, and rgrid needs {major}.{minor}.{patch} or newer"),
            "install a newer one from https://github.com/nats-io/nats-server/releases",
        )
    })
}

fn of_stream(stream: &Inspected, replicas: u8) -> Vec<Finding> {
    let name = &stream.stream;
    let Some(info) = &stream.info else {
        let advice =
            format!("restart the API, which creates it; if it was deleted, restore it from a backup first: `nats stream restore {name}`");
        return vec![Finding::error("streams", format!("stream {name} does not exist"), advice)];
    };
    let mut findings = Vec::new();
    if let Some((field, found, wanted)) = &stream.mismatch {
        findings.push(Finding::error(
            "streams",
            format!("stream {name} has the wrong configuration: `{field}` is {found}, and must be {wanted}"),
            format!("change it with `nats stream edit {name}`"),
        ));
    }
    // The other streams drop their oldest messages when they are full.
    if let Some(percent) = stream.percent_full().filter(|_| [EVENTS, INBOX].contains(&name.as_str())) {
        let what = format!("stream {name} is {percent} % full");
        let advice = if name == EVENTS {
            "see how fast it grows (`rgrid log`), and raise its bound: `rgrid log --bound …`".to_owned()
        } else {
            format!("raise its bound: `nats stream edit {name} --max-bytes=…`")
        };
        if percent >= FULL_PERCENT.1 {
            let advice = format!(
                "{advice}; above {} %, no new jobs are accepted, so that running jobs can end",
                FULL_PERCENT.1
            );
            findings.push(Finding::error("streams", what, advice));
        } else if percent >= FULL_PERCENT.0 {
            findings.push(Finding::warning("streams", what, advice));
        }
    }
    let kept = stream.number("/config/num_replicas");
    if kept < u64::from(replicas) {
        findings.push(Finding::warning(
            "streams",
            format!("stream {name} is stored by {kept} servers, and should be stored by {replicas}"),
            format!("`nats stream edit {name} --replicas={replicas}`"),
        ));
    }
    findings.extend(behind(name, &info["cluster"]));
    findings
}

/// Replicas that are offline or lag behind.
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
            format!("replicas of stream {stream} are offline or behind: {}", lost.join(", ")),
            "start them again; if one more server is lost now, the log stops",
        )
    })
}
