//! A user's directory, and what a command in it came to.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, rgrid};
use serde_json::Value;
use tempfile::TempDir;

/// What a command came to: its exit code (or 128 + its signal), and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl From<Output> for Came {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let code = output.status.code().or_else(|| Some(128 + output.status.signal()?));
        Self {
            code: code.unwrap_or(-1),
            out: output.stdout,
            err: output.stderr,
        }
    }
}

impl Came {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    /// Its output as JSON, if it ended well.
    pub(crate) fn json(&self) -> Result<Value> {
        ensure!(self.code == 0, "exit code {}: {}{}", self.code, self.out(), self.err());
        serde_json::from_slice(&self.out).with_context(|| self.out())
    }

    /// Its output as one line, if it ended well.
    pub(crate) fn line(&self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}: {}{}", self.code, self.out(), self.err());
        Ok(self.out().trim_end().to_owned())
    }
}

/// A user's directory.
pub(crate) struct Here {
    dir: TempDir,
    env: Vec<(&'static str, String)>,
}

impl Here {
    /// An empty directory, with the way to a grid.
    pub(crate) fn of(grid: &Grid) -> Result<Self> {
        let mut here = Self::without_grid()?;
        here.env.extend(grid.access());
        Ok(here)
    }

    /// An empty directory, and no grid.
    pub(crate) fn without_grid() -> Result<Self> {
        let dir = TempDir::with_prefix("rgrid-here-")?;
        fs::create_dir(dir.path().join("here"))?;
        // Whatever grid the user of this machine has is not ours.
        let env = vec![
            ("RGRID_DATA_DIR", dir.path().join("no-grid").display().to_string()),
            // Nor is what they saved before.
            ("XDG_STATE_HOME", dir.path().join("state").display().to_string()),
        ];
        Ok(Self { dir, env })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("here")
    }

    /// Writes a file, with the directories that it needs.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<&Self> {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().context("no parent")?)?;
        fs::write(path, content)?;
        Ok(self)
    }

    /// Beside this directory: what is the user's, and no part of what is run here.
    pub(crate) fn beside(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>> {
        fs::read(self.path().join(path)).with_context(|| path.to_owned())
    }

    /// The program with these arguments, in this directory, without a terminal.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.program(rgrid());
        command.args(arguments);
        command
    }

    /// Another program in this directory, with the same environment.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn rgrid<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Came> {
        Ok(self.command(arguments).output()?.into())
    }

    /// Trusts the `rgrid.toml` of this directory as it is.
    pub(crate) fn trusted(&self) -> Result<&Self> {
        self.rgrid(&["trust"])?.line()?;
        Ok(self)
    }

    /// Every file below, by its path: its content, and whether it may be executed.
    pub(crate) fn files(&self) -> Result<BTreeMap<PathBuf, (Vec<u8>, bool)>> {
        let mut files = BTreeMap::new();
        gather(&self.path(), &self.path(), &mut files)?;
        Ok(files)
    }
}

fn gather(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, (Vec<u8>, bool)>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            gather(root, &path, files)?;
        } else {
            let executable = fs::metadata(&path)?.permissions().mode() & 0o111 != 0;
            files.insert(path.strip_prefix(root)?.to_owned(), (fs::read(&path)?, executable));
        }
    }
    Ok(())
}
