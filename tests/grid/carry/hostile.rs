//! What a job leaves in its work directory brings no runner down, and what it mounted there is nobody's to collect or to remove. These
//! tests need a Docker daemon and the image `rgrid/python:3`, and may mount scratch directories.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::changed::grid_of;
use crate::cli::here::Here;

/// Leaves 20,000 nested directories, a pipe, a socket, three terabytes of nothing, and one honest file.
const LEAVES: &str = "\
import os, socket
top = os.open('.', os.O_RDONLY)
for _ in range(20000):
    os.mkdir('d')
    os.chdir('d')
os.fchdir(top)
os.mkfifo('pipe')
socket.socket(socket.AF_UNIX).bind('socket')
open('vast', 'w').truncate(3 << 40)
open('some', 'w').truncate(40 << 20)
open('kept', 'w').write('kept')
";

/// A mount of one scratch directory at another, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(from: &Path, to: &Path) -> Result<Self> {
        let status = Command::new("mount").arg("--bind").args([from, to]).status()?;
        ensure!(status.success(), "these tests may mount scratch directories");
        Ok(Self(to.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

/// Waits until no attempt's directory holds anything: each is as it was made, or gone.
async fn clean(grid: &Grid) -> Result<()> {
    let attempts = grid.dir().join("runner-1/attempts");
    let names = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    grid.eventually("nothing is left of the attempts", async || {
        let mut parts = names(&attempts).flat_map(|place| names(&place));
        (!parts.any(|part| names(&part).next().is_some())).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_leaves_brings_no_runner_down_on_either_executor() -> Result<()> {
    for executor in ["process", "docker"] {
        let grid = grid_of(executor).await?;
        let here = Here::of(&grid)?;
        let before = grid.pid(Part::Runner(1))?;
        here.write("leaves.py", LEAVES)?;
        let came = here.rgrid(&["run", "leaves.py"])?;
        assert_eq!(came.code, 0, "{executor}: {}", came.err());
        assert_eq!(here.read("kept")?, b"kept", "{executor}");
        assert_eq!(here.read("some")?, vec![0; 40 << 20], "{executor}");
        let err = came.err();
        for (name, why) in [
            ("pipe", "neither a file nor a directory"),
            ("socket", "neither a file nor a directory"),
            ("vast", "3072 GiB, nearly all of it holes"),
            ("d/d/d", "too deep"),
        ] {
            let said = err.lines().any(|line| line.contains(name) && line.contains(why));
            ensure!(said, "{executor}: {name} is left out, and that is said: {err}");
        }
        clean(&grid).await?;
        assert_eq!(grid.pid(Part::Runner(1))?, before, "{executor}");
        assert_eq!(here.rgrid(&["run", "--program", "true"])?.code, 0, "{executor}: the next job runs");
        ensure!(
            !grid.dir().join("runner-1/leftovers").exists(),
            "{executor}: all of it could be removed"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_job_mounts_is_neither_kept_nor_removed_and_is_gone_with_it() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let data = tempfile::tempdir()?;
    fs::write(data.path().join("precious"), "data")?;
    let script = format!(
        "mkdir mnt && mount --bind '{}' mnt && ls mnt && echo made > made",
        data.path().display()
    );
    here.write("mounts.sh", script)?;
    let came = here.rgrid(&["run", "mounts.sh"])?;
    assert_eq!((came.code, came.out().as_str()), (0, "precious\n"), "{}", came.err());
    assert_eq!(here.read("made")?, b"made\n");
    ensure!(!here.path().join("mnt/precious").exists(), "what was mounted is not an output");
    clean(&grid).await?;
    assert_eq!(fs::read_to_string(data.path().join("precious"))?, "data");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&grid.dir().display().to_string()), "{mounts}");
    Ok(())
}

#[tokio::test]
async fn a_runner_starts_whatever_is_left_and_the_doctor_names_what_is_mounted_there() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    grid.kill(Part::Runner(1))?;
    // As an earlier version left them, whose jobs mounted where the runner saw it.
    let attempts = grid.dir().join("runner-1/attempts");
    let (mount, data) = (attempts.join("90/work/mnt"), tempfile::tempdir()?);
    fs::create_dir_all(&mount)?;
    fs::write(data.path().join("precious"), "data")?;
    let nest =
        "import os, sys\nos.makedirs(sys.argv[1])\nos.chdir(sys.argv[1])\nfor _ in range(30000):\n    os.mkdir('d')\n    os.chdir('d')\n";
    let nested = Command::new("python3").args(["-c", nest]).arg(attempts.join("80/work")).status()?;
    ensure!(nested.success());
    let mounted = Mounted::bind(data.path(), &mount)?;
    grid.run(Part::Runner(1))?;
    let id = grid.shell("echo it runs").await?;
    let ended = grid.ended(&id).await?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    grid.eventually("what is nested is removed", async || (!attempts.join("80").exists()).then_some(()))
        .await?;
    let words = format!("{} is mounted in it", mount.display());
    grid.eventually("the doctor names the mount", async || {
        here.rgrid(&["doctor"]).ok()?.out().contains(&words).then_some(())
    })
    .await?;
    ensure!(grid.log(Part::Runner(1)).contains(&words));
    assert_eq!(fs::read_to_string(data.path().join("precious"))?, "data");
    // Once it is unmounted, the next start removes the rest.
    grid.kill(Part::Runner(1))?;
    drop(mounted);
    grid.run(Part::Runner(1))?;
    grid.eventually("the rest is removed", async || (!attempts.join("90").exists()).then_some(()))
        .await?;
    assert_eq!(fs::read_to_string(data.path().join("precious"))?, "data");
    Ok(())
}
