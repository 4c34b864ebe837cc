//! An index that the worker's operator names, and either installer.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::{logged, wheel};
use crate::cli::here::Here;

/// A server of a directory, ended with this handle.
pub(super) struct Index(Child);

impl Index {
    /// Starts it; also its URL.
    pub(super) fn of(dir: &Path) -> Result<(Self, String)> {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take();
        let index = Self(child);
        let mut line = String::new();
        BufReader::new(stdout.context("it has an output")?).read_line(&mut line)?;
        let port = line.split_whitespace().skip_while(|word| *word != "port").nth(1);
        let url = format!("http://127.0.0.1:{}/simple", port.context("it says its port")?);
        Ok((index, url))
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Search paths with uv, and with pip alone.
pub(super) fn installers() -> Result<[(String, &'static str); 2]> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let (venv, path) = (root.join(".rgrid/venv/bin"), std::env::var("PATH")?);
    ensure!(
        venv.join("uv").is_file(),
        "{} has no uv; run: scripts/bootstrap test",
        venv.display()
    );
    let with_uv = format!("{}:{path}", venv.display());
    let without = std::env::split_paths(&path).filter(|dir| !dir.join("uv").exists());
    let without = std::env::join_paths(without)?.into_string().ok().context("it is text")?;
    Ok([(with_uv, "uv"), (without, "pip")])
}

#[tokio::test]
async fn uv_and_pip_install_from_the_index_that_the_workers_operator_names() -> Result<()> {
    let dir = tempfile::TempDir::new()?;
    for (name, needs) in [("hail", "world"), ("world", "")] {
        let body = format!("def said(): return '{name}'\n");
        wheel(&dir.path().join("simple").join(name), name, "1.0", &body, needs)?;
    }
    let (_index, url) = Index::of(dir.path())?;
    for (path, installer) in installers()? {
        let env = vec![("PATH", path), ("PIP_INDEX_URL", url.clone())];
        let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
        grid.run(Part::Runner(1))?;
        let here = Here::of(&grid)?;
        here.write(
            "s.py",
            "import hail, subprocess, world\nprint(hail.said(), world.said(), flush=True)\nsubprocess.run(['world-cli'], check=True)\n",
        )?
        .write("requirements.txt", "hail\n")?;
        let came = here.rgrid(&["run", "s.py"])?;
        assert_eq!(
            (came.code, came.out().as_str()),
            (0, "hail world\nworld\n"),
            "{installer}: {}",
            came.err()
        );
        logged(&grid, Part::Runner(1), &format!("by {installer} in"), 1).await?;
        here.write("requirements.txt", "hail==2.0\n")?;
        let came = here.rgrid(&["run", "s.py"])?;
        let expected = format!("{installer} ended with exit code 1");
        ensure!(
            came.code == 126 && came.err().contains(&expected) && came.err().contains("hail"),
            "{}",
            came.err()
        );
    }
    Ok(())
}
