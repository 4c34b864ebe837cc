//! `rgrid status`: what of an embedded grid runs, since when, and what it uses.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::{
    dir::DataDir,
    grid_file::GridFile,
    http,
    part::Part,
    process,
    record::{PartState, Phase},
};
use crate::output::{print, print_json};

/// The exit code of a grid that is not, or not wholly, up; as `systemctl status` has it.
const NOT_RUNNING: u8 = 3;

/// One line of the status.
#[derive(Debug, Serialize)]
struct Row {
    part: &'static str,
    state: PartState,
    pid: Option<u32>,
    since: Option<DateTime<Utc>>,
    restarts: u32,
    port: Option<u16>,
    /// PSS, of the database with its children.
    memory_bytes: Option<u64>,
    last_end: Option<String>,
}

/// The whole status; its JSON is for programs.
#[derive(Debug, Serialize)]
struct Status {
    data_dir: String,
    /// Whether a supervisor lives and every part is up.
    up: bool,
    api_url: Option<String>,
    parts: Vec<Row>,
    /// The API's own view, where it answers.
    workers: Option<Value>,
}

/// The state of the embedded grid in a data directory, for a client that cannot reach it.
#[derive(Debug)]
pub(crate) struct Local {
    /// The local path.
    pub(crate) data_dir: std::path::PathBuf,
    /// The command that starts it.
    pub(crate) start: String,
    /// Parts that do not run as they should: which, how it is, and how it ended last.
    pub(crate) ailing: Vec<(&'static str, String, Option<String>)>,
    /// Whether any part of it runs.
    pub(crate) runs: bool,
}

/// Looks at the embedded grid in a data directory, the default one unless named; nothing where there is none.
///
/// # Errors
/// If the data directory may not be read.
pub(crate) fn local(data_dir: Option<&Path>) -> anyhow::Result<Option<Local>> {
    let dir = DataDir::new(data_dir)?;
    if GridFile::find(dir.root())?.is_none() {
        return Ok(None);
    }
    let parts = rows(&dir);
    let runs = parts.iter().any(|row| row.pid.is_some());
    let ailing = parts.into_iter().filter(|row| row.state != PartState::Running);
    Ok(Some(Local {
        data_dir: dir.root().to_owned(),
        start: format!("rgrid up --detach{}", dir.as_flag()),
        ailing: ailing
            .map(|row| (row.part, format!("{:?}", row.state).to_lowercase(), row.last_end))
            .collect(),
        runs,
    }))
}

/// Shows the state of the embedded grid in a data directory, the default one unless named. The exit code is 0 if all of it is
/// up, and 3 if not.
///
/// # Errors
/// If the data directory may not be read.
pub(crate) async fn status(data_dir: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let dir = DataDir::new(data_dir)?;
    let grid = GridFile::find(dir.root())?;
    let parts = rows(&dir);
    let supervised = parts.first().is_some_and(|row| row.state == PartState::Running);
    let up = supervised && parts.iter().all(|row| row.state == PartState::Running);
    let workers = match &grid {
        Some(grid) if supervised => http::get(&grid.api_url, "/v1/workers", &grid.api_key).await.ok(),
        _ => None,
    };
    let status = Status {
        data_dir: dir.root().display().to_string(),
        up,
        api_url: grid.map(|grid| grid.api_address().to_owned()),
        parts,
        workers,
    };
    if json {
        print_json(&status)?;
    } else {
        print(&render(&status, &dir))?;
    }
    Ok(if up { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
}

/// The supervisor first, then the parts. What a record claims of a process that is gone is not repeated.
fn rows(dir: &DataDir) -> Vec<Row> {
    let supervisor = dir.read_up().ok().filter(|up| up.process.is_alive());
    let supervised = supervisor.is_some();
    let pid = supervisor.as_ref().map(|up| up.process.pid);
    let mut rows = vec![Row {
        part: "supervisor",
        state: supervisor.as_ref().map_or(PartState::Stopped, |up| match up.phase {
            Phase::Starting => PartState::Starting,
            Phase::Up => PartState::Running,
            Phase::Stopping | Phase::Ended => PartState::Stopping,
        }),
        pid,
        since: supervisor.map(|up| up.since),
        restarts: 0,
        port: None,
        memory_bytes: pid.and_then(|pid| process::memory(pid, false)),
        last_end: None,
    }];
    rows.extend(Part::ALL.into_iter().map(|part| row(dir, part, supervised)));
    rows
}

fn row(dir: &DataDir, part: Part, supervised: bool) -> Row {
    let record = dir.read_part(part);
    let process = record
        .as_ref()
        .and_then(|record| record.process.clone())
        .filter(process::Identity::is_alive);
    let pid = process.map(|process| process.pid);
    let state = match (&record, pid) {
        (Some(record), Some(_)) => record.state,
        // Its supervisor has not written down yet that it is gone.
        (Some(record), None) if supervised && record.state == PartState::Running => PartState::Restarting,
        (Some(record), None) if supervised => record.state,
        _ => PartState::Stopped,
    };
    Row {
        part: part.name(),
        state,
        pid,
        since: record.as_ref().and_then(|record| record.since).filter(|_| pid.is_some()),
        restarts: record.as_ref().map_or(0, |record| record.restarts),
        port: record.as_ref().and_then(|record| record.port),
        memory_bytes: pid.and_then(|pid| process::memory(pid, part == Part::Postgres)),
        last_end: record.and_then(|record| record.last_end),
    }
}

fn render(status: &Status, dir: &DataDir) -> String {
    let supervisor = status.parts.first();
    let line = match (status.up, supervisor.map(|row| row.state)) {
        (true, _) => "is up",
        (_, Some(PartState::Running)) => "is partly up",
        (_, Some(PartState::Starting)) => "is starting",
        (_, Some(PartState::Stopping)) => "is going down",
        (_, _) if status.parts.iter().any(|row| row.pid.is_some()) => "has lost its supervisor",
        (_, _) => "is not running",
    };
    let mut text = format!("The grid in {} {line}.\n", status.data_dir);
    if status.parts.iter().all(|row| row.pid.is_none()) {
        let _ = writeln!(text, "Start it with: rgrid up --detach{}", dir.as_flag());
        return text;
    }
    if let Some(url) = &status.api_url {
        let _ = writeln!(text, "API {url}");
    }
    let _ = writeln!(text, "\n{}", table(&status.parts));
    let own = status
        .parts
        .iter()
        .filter(|row| !matches!(row.part, "nats" | "postgres"))
        .filter_map(|row| row.memory_bytes)
        .sum::<u64>();
    let _ = writeln!(
        text,
        "\nrgrid's own processes use {} together; the logs are in {}.",
        megabytes(own),
        dir.root().join("logs").display()
    );
    let workers = status
        .workers
        .as_ref()
        .map(|answer| answer.get("workers").unwrap_or(answer).as_array().map_or(0, Vec::len));
    text.push_str(&match workers {
        Some(1) => "The API knows 1 worker.\n".to_owned(),
        Some(count) => format!("The API knows {count} workers.\n"),
        None => "The API does not answer.\n".to_owned(),
    });
    text
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["PART", "STATE", "PID", "SINCE", "RESTARTS", "PORT", "MEMORY", "LAST END"]);
    for column in [2, 4, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    fn or_dash<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    for row in rows {
        let state = serde_json::to_value(row.state)
            .ok()
            .and_then(|state| state.as_str().map(str::to_owned));
        table.add_row([
            row.part.to_owned(),
            or_dash(state),
            or_dash(row.pid),
            or_dash(row.since.map(|since| since.to_rfc3339_opts(SecondsFormat::Secs, true))),
            row.restarts.to_string(),
            or_dash(row.port),
            or_dash(row.memory_bytes.map(megabytes)),
            or_dash(row.last_end.as_deref()),
        ]);
    }
    table
}

#[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
