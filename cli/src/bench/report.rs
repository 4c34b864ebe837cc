//! What was measured: as JSON for programs, which is a contract, and as a table.

use serde_json::{Map, Value, json};

use super::{
    args::What,
    crowd::{Noop, Process},
    docker::Docker,
    latency::{Latency, Percentiles},
    upload::Upload,
};
use crate::output::{Align, size, table};

/// One thing that was measured.
#[derive(Debug)]
pub(super) enum Measured {
    Latency(Latency),
    Process(Process),
    Noop(Noop),
    Upload(Upload),
    Docker(Docker),
    /// What could not be measured here, and why.
    Absent(What, String),
}

/// The JSON of one measurement, or of all by name.
pub(super) fn json(measured: &[Measured], all: bool) -> Value {
    let values = measured.iter().map(|one| match one {
        Measured::Latency(it) => (What::Latency, json!(it)),
        Measured::Process(it) => (What::Process, json!(it)),
        Measured::Noop(it) => (What::Noop, json!(it)),
        Measured::Upload(it) => (What::Upload, json!(it)),
        Measured::Docker(it) => (What::Docker, json!(it)),
        Measured::Absent(what, _) => (*what, Value::Null),
    });
    if all {
        Value::Object(values.map(|(what, value)| (what.name().to_owned(), value)).collect::<Map<_, _>>())
    } else {
        values.map(|(_, value)| value).next().unwrap_or(Value::Null)
    }
}

/// The table.
pub(super) fn human(measured: &[Measured]) -> String {
    let columns = [
        ("MEASURED", Align::Left),
        ("GRID", Align::Right),
        ("MACHINE ALONE", Align::Right),
        ("RATIO", Align::Right),
        ("", Align::Left),
    ];
    let mut rows = Vec::new();
    for one in measured {
        match one {
            Measured::Latency(it) => latency_rows(it, &mut rows),
            Measured::Process(it) => rows.extend([
                row(
                    &format!("{} × /bin/true", it.jobs),
                    &s(it.wall_s),
                    &s(it.floor_s),
                    &format!("{:.2}", it.ratio),
                    "xargs -P<cpus>",
                ),
                row("  in the tables", &format!("+{}", s(it.projected_s)), "", "", ""),
            ]),
            Measured::Noop(it) => rows.extend([
                row(
                    &format!("{} × nothing", it.jobs),
                    &s(it.wall_s),
                    "",
                    "",
                    &format!("{:.0} jobs/s", it.jobs_per_s),
                ),
                row("  in the tables", &format!("+{}", s(it.projected_s)), "", "", ""),
            ]),
            Measured::Upload(it) => upload_rows(it, &mut rows),
            Measured::Docker(it) => {
                rows.push(row(
                    "container, median",
                    &s(it.median_s),
                    &s(it.floor_s),
                    &format!("{:.2}", it.ratio),
                    "docker run --rm",
                ));
            }
            Measured::Absent(what, why) => rows.push(row(what.name(), "-", "-", "-", why)),
        }
    }
    table(&columns, rows)
}

fn latency_rows(it: &Latency, rows: &mut Vec<Vec<String>>) {
    let both = |times: Percentiles| format!("{:.2} / {:.2} ms", times.p50, times.p99);
    let publish = it.publish.map_or_else(|| "-".to_owned(), both);
    rows.push(row(
        &format!("submit → started, p50 / p99 of {}", it.jobs),
        &both(it.submit_to_started_ms),
        &publish,
        "",
        "JetStream publish + ack",
    ));
    rows.push(row(
        "submit → finished, p50 / p99",
        &both(it.submit_to_finished_ms),
        &both(it.spawn),
        "",
        "spawn of /bin/true",
    ));
}

fn upload_rows(it: &Upload, rows: &mut Vec<Vec<String>>) {
    for one in &it.sizes {
        #[allow(clippy::cast_precision_loss, reason = "a rate is shown to the megabyte")]
        let rate = |ms: f64| format!("{:.0} MB/s", one.bytes as f64 / 1000.0 / ms);
        let text = format!("put {}, get {}", rate(one.put_ms), rate(one.get_ms));
        rows.push(row(
            &format!("file of {}, put / get", size(one.bytes)),
            &format!("{:.1} / {:.1} ms", one.put_ms, one.get_ms),
            "",
            "",
            &text,
        ));
    }
}

fn row(what: &str, grid: &str, floor: &str, ratio: &str, note: &str) -> Vec<String> {
    [what, grid, floor, ratio, note].map(str::to_owned).to_vec()
}

fn s(seconds: f64) -> String {
    format!("{seconds:.3} s")
}
