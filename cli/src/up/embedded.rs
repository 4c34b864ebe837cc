//! A grid of one's own, for as long as a value lives: what `rgrid bench --embedded` runs against.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::grid_file::GridFile;

/// An embedded grid that this process brought up. [`Self::stop`] takes it down; dropping it does too, and blocks meanwhile.
#[derive(Debug)]
pub(crate) struct Embedded {
    program: PathBuf,
    data_dir: PathBuf,
    grid: GridFile,
    is_up: bool,
}

impl Embedded {
    /// Brings up a grid in a data directory that nothing else uses, and returns when it is ready. `options` are those of
    /// `rgrid up`.
    ///
    /// # Errors
    /// If it does not come up; nothing of it runs then.
    pub(crate) async fn start(data_dir: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let program = env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(&program);
        command.args(["up", "--detach", "--data-dir"]).arg(data_dir).args(options);
        let output = command.stdin(Stdio::null()).output().await.context("cannot start a grid")?;
        if !output.status.success() {
            bail!(
                "cannot start a grid for this run: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let grid = GridFile::load(data_dir)?;
        Ok(Self {
            program,
            data_dir: data_dir.to_owned(),
            grid,
            is_up: true,
        })
    }

    /// Its addresses and credentials.
    #[must_use]
    pub(crate) fn grid(&self) -> &GridFile {
        &self.grid
    }

    /// Takes it down.
    ///
    /// # Errors
    /// If something of it does not end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.is_up = false;
        let output = Command::new(&self.program)
            .args(["down", "--data-dir"])
            .arg(&self.data_dir)
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "cannot stop the grid of this run: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if self.is_up {
            let mut command = std::process::Command::new(&self.program);
            let _ = command
                .args(["down", "--data-dir"])
                .arg(&self.data_dir)
                .stdout(Stdio::null())
                .status();
        }
    }
}
