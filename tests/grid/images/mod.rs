//! A grid without any registry: images come from its own store, whole and verified, once, or not at all.

mod build;
mod hostile;
mod refused;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::here::Here;

/// What Docker says, if it does what it is told.
fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// An image of the test's own in Docker, with this machine's shell and nothing else; removed in the end.
struct Shell {
    /// The version of runtime `sh` that it stands for.
    version: String,
    name: String,
}

impl Shell {
    /// With so many megabytes in it that cannot be compressed.
    fn new(dir: &Path, megabytes: usize) -> Result<Self> {
        let version = format!("t{}", &Uuid::now_v7().simple().to_string()[12..]);
        let name = format!("rgrid/sh:{version}");
        let script = "set -e; libs=$(ldd /bin/sh | grep -o '/[^ ]*'); \
                      head -c \"$2\" /dev/urandom > \"$3/ballast\"; \
                      tar -chf - -C \"$3\" ballast -C / bin/sh $(for lib in $libs; do echo \"${lib#/}\"; done) \
                      | docker import - \"$1\"";
        let made = Command::new("bash")
            .args(["-o", "pipefail", "-c", script, "bash", &name, &(megabytes << 20).to_string()])
            .arg(dir)
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { version, name })
    }

    fn is_here(&self) -> bool {
        docker(&["image", "inspect", &self.name]).is_ok()
    }

    fn remove(&self) -> Result<()> {
        docker(&["image", "rm", "--force", &self.name]).map(drop)
    }

    fn job(&self) -> Value {
        json!({ "command": ["-c", "echo in $RGRID_WORKER"], "runtime": format!("sh:{}", self.version), "executor": "docker" })
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _gone = self.remove();
    }
}

/// A grid whose worker has Docker and plain processes, and whose store is a directory.
async fn grid() -> Result<(Grid, tempfile::TempDir)> {
    let store = tempfile::tempdir()?;
    let env = vec![
        ("RGRID_EXECUTOR", "auto".to_owned()),
        ("RGRID_STORE", format!("file://{}", store.path().display())),
    ];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    Ok((grid, store))
}

/// How often a runner began to load an image.
fn loads(grid: &Grid, shell: &Shell) -> usize {
    grid.log(Part::Runner(1))
        .matches(&format!("loading image {} from the grid's store", shell.name))
        .count()
}

async fn id_of(grid: &Grid, job: &Value) -> Result<String> {
    let submitted = grid.submit(job).await?;
    Ok(submitted["id"].as_str().context("an id")?.to_owned())
}

#[tokio::test]
async fn a_grid_without_a_registry_runs_what_was_pushed_to_it() -> Result<()> {
    let (grid, _store) = grid().await?;
    let here = Here::of(&grid)?;
    let shell = Shell::new(grid.dir(), 1)?;
    let name = shell.name.as_str();
    let came = here.rgrid(&["image", "push", name])?;
    assert!(
        came.code == 0 && came.out().starts_with(&format!("pushed {name}: ")),
        "{}{}",
        came.out(),
        came.err()
    );
    let again = here.rgrid(&["image", "push", name])?;
    assert!(again.out().contains("is already in the grid"), "{}{}", again.out(), again.err());
    let listed = here.rgrid(&["image", "list", "--json"])?.json()?;
    assert_eq!(
        (listed["images"][0]["name"].as_str(), listed["images"][0]["platform"].as_str()),
        (
            Some(name),
            Some(docker(&["version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"])?.as_str())
        ),
        "{listed}"
    );
    assert!(here.rgrid(&["image", "list"])?.out().contains(name));

    // Whatever the worker prefers: the grid has the image, so that no registry is needed.
    shell.remove()?;
    here.write("x.sh", "echo made > made.txt\n")?;
    let runtime = format!("sh:{}", shell.version);
    let came = here.rgrid(&["run", "--runtime", &runtime, "x.sh"])?;
    assert_eq!(came.code, 0, "{}", came.err());
    assert_eq!(here.read("made.txt")?, b"made\n");
    assert!(shell.is_here() && loads(&grid, &shell) == 1, "{}", came.err());
    // The worker says that it has it now.
    grid.eventually("the worker has it", async || {
        let all = grid.get("runtimes/workers").await.ok()?;
        all["workers"][0]["images"][name].is_string().then_some(())
    })
    .await?;

    shell.remove()?;
    let came = here.rgrid(&["image", "load", name])?;
    assert!(came.code == 0 && shell.is_here(), "{}", came.err());
    here.rgrid(&["image", "remove", name])?.line()?;
    assert_eq!(
        here.rgrid(&["image", "list"])?.line()?,
        "the grid stores no images; add one with `rgrid image push IMAGE`"
    );
    let gone = here.rgrid(&["image", "remove", name])?;
    assert!(gone.code == 1 && gone.err().contains("does not store image"), "{}", gone.err());
    Ok(())
}

#[tokio::test]
async fn jobs_that_want_the_same_image_at_once_load_it_once() -> Result<()> {
    let (grid, _store) = grid().await?;
    let here = Here::of(&grid)?;
    let shell = Shell::new(grid.dir(), 8)?;
    here.rgrid(&["image", "push", &shell.name])?.line()?;
    shell.remove()?;
    let submitted = grid.submit(&json!([shell.job(), shell.job()])).await?;
    for job in submitted["jobs"].as_array().context("jobs")? {
        let ended = grid.ended(job["id"].as_str().context("an id")?).await?;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    assert_eq!(loads(&grid, &shell), 1);
    Ok(())
}

#[tokio::test]
async fn a_runner_that_is_killed_while_it_loads_leaves_nothing_behind() -> Result<()> {
    let (mut grid, _store) = grid().await?;
    let here = Here::of(&grid)?;
    let shell = Shell::new(grid.dir(), 64)?;
    here.rgrid(&["image", "push", &shell.name])?.line()?;
    shell.remove()?;
    let id = id_of(&grid, &shell.job()).await?;
    grid.eventually("the image is being loaded", async || (loads(&grid, &shell) > 0).then_some(()))
        .await?;
    grid.kill(Part::Runner(1))?;
    assert!(!shell.is_here(), "it was killed before that");
    grid.run(Part::Runner(1))?;
    let ended = grid.ended(&id).await?;
    assert_eq!(
        (ended["state"].as_str(), ended["attempt"].as_u64()),
        (Some("succeeded"), Some(2)),
        "{ended}"
    );
    assert!(shell.is_here() && loads(&grid, &shell) == 2);
    let spool = grid.dir().join("runner-1/images");
    assert_eq!(fs::read_dir(&spool)?.count(), 0, "{}", spool.display());
    Ok(())
}
