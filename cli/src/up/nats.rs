//! The private nats-server: its configuration, and whether it answers.

use anyhow::Context;
use bus::log::connect::Bus;
use serde_json::json;
use tokio::process::Command;

use super::{
    dir::DataDir,
    grid_file::GridFile,
    part::Part,
    programs::{NatsServer, calm},
    record::replace,
};
use crate::machine;

/// How often what was acknowledged is forced to the disk. The end of any process, by `kill -9` too, loses nothing of it: the
/// kernel has it. A power cut or a kernel crash loses up to this much. `always` would survive that as well, at three times the
/// latency of a publish and a fortieth of the throughput (0.43 ms and 4,400/s, measured on one server); the server's own
/// default is two minutes.
const SYNC_INTERVAL: &str = "2s";
/// The largest message: a batch of submissions travels as one request.
const MAX_PAYLOAD_BYTES: u64 = 8 << 20;
/// More than the streams' bounds together. Without it the server takes three quarters of what is free now, and on a small disk
/// refuses to create a stream whose bound is larger, long before there is anything to store.
const MAX_FILE_STORE_BYTES: u64 = 1 << 40;

/// Writes the server's configuration, and returns the command that starts it.
pub(super) fn command(dir: &DataDir, grid: &GridFile, server: &NatsServer) -> anyhow::Result<Command> {
    let path = dir.nats().join("nats.conf");
    let text = serde_json::to_vec_pretty(&config(dir, grid)?)?;
    replace(&path, &text, false).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = calm(&server.path);
    command.arg("-c").arg(&path);
    // Go gives a server as many threads as the machine has CPUs, and hands work from one to the other at every message. The
    // other half of this machine is busy with jobs: a fifth less CPU for the same messages (measured on two CPUs).
    command.env("GOMAXPROCS", machine::cpus().div_ceil(2).to_string());
    // Near this, Go's collector frees what a burst took instead of letting it grow to twice of what is used.
    command.env("GOMEMLIMIT", (machine::memory() / 2).to_string());
    Ok(command)
}

/// The configuration. The server's own language is a superset of JSON, so that nothing needs quoting by hand.
fn config(dir: &DataDir, grid: &GridFile) -> anyhow::Result<serde_json::Value> {
    let port = grid.port(Part::Nats).context("grid.json names no NATS port")?;
    let user = |url: &url::Url| json!({ "user": url.username(), "password": url.password() });
    Ok(json!({
        "server_name": "rgrid",
        "listen": format!("127.0.0.1:{port}"),
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {
            "store_dir": dir.nats().join("data"),
            "sync_interval": SYNC_INTERVAL,
            "max_file_store": MAX_FILE_STORE_BYTES,
        },
        "accounts": {
            "RGRID": { "jetstream": "enabled", "users": [user(&grid.nats_url)] },
            "SYS": { "users": [user(&grid.nats_system_url)] },
        },
        "system_account": "SYS",
    }))
}

/// Asks the server, with the grid's credentials, whether `JetStream` works.
pub(super) async fn probe(grid: &GridFile) -> anyhow::Result<()> {
    let bus = Bus::connect(grid.nats_url.as_str(), "rgrid-up").await?;
    bus.js.query_account().await?;
    Ok(())
}
