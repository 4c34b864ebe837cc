//! `rgrid bench`.
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {}
pub(crate) async fn bench(_: BenchArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
