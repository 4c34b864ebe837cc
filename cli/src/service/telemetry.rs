//! What a service logs, and how: `RGRID_LOG`, `RGRID_LOG_FORMAT`.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::failure::usage;

/// What is logged unless `RGRID_LOG` says otherwise; the client libraries only when something is wrong.
const DEFAULT: &str = "info,async_nats=warn,sqlx=warn,hyper=warn";

/// Starts logging to standard error.
///
/// # Errors
/// If `RGRID_LOG` or `RGRID_LOG_FORMAT` cannot be understood.
pub(crate) fn start() -> anyhow::Result<()> {
    let filter = read("RGRID_LOG").unwrap_or_else(|| DEFAULT.to_owned());
    let filter = EnvFilter::builder().parse(&filter).map_err(|error| {
        usage(format!(
            "RGRID_LOG is `{filter}`, which is not a filter ({error}); write for instance info, or warn,runner=debug"
        ))
    })?;
    let logger = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match read("RGRID_LOG_FORMAT").as_deref() {
        None | Some("text") => logger.try_init(),
        Some("json") => logger.json().try_init(),
        Some(other) => return Err(usage(format!("RGRID_LOG_FORMAT is `{other}`; write text or json"))),
    };
    started.map_err(|error| anyhow::anyhow!(error)).context("cannot start logging")
}

/// Starts logging for a client, which logs nothing unless `RGRID_LOG` asks for it.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_if_asked() -> anyhow::Result<()> {
    if read("RGRID_LOG").is_some() { start() } else { Ok(()) }
}

fn read(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
