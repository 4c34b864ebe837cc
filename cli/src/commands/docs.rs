//! `rgrid docs`.
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub(crate) struct DocsArgs {}
pub(crate) fn docs(_: &DocsArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
