//! Installations that fail, are cut, or die with their runner.

use std::{fs, process::Stdio};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::{INSTALLED, saying, wheel};
use crate::cli::here::Here;

#[tokio::test]
async fn an_installation_that_fails_is_the_jobs_failure_with_what_the_installer_said() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let file = wheel(&here.path().join("wheels"), "needy", "1.0", "", "nothing-like-it")?;
    here.write("s.py", "print('it ran')\n")?
        .write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    let came = here.rgrid(&["run", "s.py"])?;
    assert_eq!((came.code, came.out().as_str()), (126, ""), "{}", came.err());
    let err = came.err();
    ensure!(err.contains("nothing-like-it"), "the installer's own words: {err}");
    ensure!(
        err.contains("cannot install 1 package (requirements.txt): pip ended with exit code 1")
            || err.contains("uv ended with exit code 1"),
        "{err}"
    );
    // It failed once, is not made again by itself, and says the same later.
    grid.projected().await?;
    let jobs = grid.get("jobs").await?;
    let id = jobs["jobs"][0]["id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(jobs["jobs"][0]["state"], "failed");
    let history = grid.history(&id).await?;
    assert_eq!(history, ["job.submitted.v1", "job.claimed.v1", "job.finished.v1"]);
    let log = here.rgrid(&["logs", &id])?;
    ensure!(
        log.err().contains("nothing-like-it") && log.out().is_empty(),
        "{}{}",
        log.out(),
        log.err()
    );

    // Python that is too old is said before anything is installed.
    let text = "# /// script\n# requires-python = '>=3.99'\n# dependencies = ['six']\n# ///\n";
    let err = here.write("new.py", text)?.rgrid(&["run", "new.py"])?.err();
    ensure!(
        err.contains("the job needs Python >=3.99 (requires-python), and for runtime `python` this worker has 3."),
        "{err}"
    );
    Ok(())
}

/// A source archive with a build backend of its own that says that it runs, and never ends.
fn endless(here: &Here) -> Result<()> {
    let mark = here.path().join("builds").display().to_string();
    let backend = format!(
        "import os, time\ndef build_wheel(*_):\n    open({mark:?}, 'a').write(str(os.getpid()) + '\\n')\n    time.sleep(600)\n\
         prepare_metadata_for_build_wheel = build_wheel\n"
    );
    here.write("endless-1.0/backend.py", backend)?
        .write(
            "endless-1.0/pyproject.toml",
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n[project]\nname = 'endless'\nversion = '1.0'\n",
        )?
        .write("endless-1.0/PKG-INFO", "Metadata-Version: 2.1\nName: endless\nVersion: 1.0\n")?;
    let tar = std::process::Command::new("tar")
        .args(["-czf", "endless-1.0.tar.gz", "endless-1.0"])
        .current_dir(here.path())
        .status()?;
    ensure!(tar.success());
    here.write("requirements.txt", "--no-index\n./endless-1.0.tar.gz\n")?;
    Ok(())
}

/// Waits until the build runs, and says by which process.
async fn building(grid: &Grid, here: &Here) -> Result<i32> {
    let mark = here.path().join("builds");
    grid.eventually("the build runs", async || {
        fs::read_to_string(&mark).ok()?.lines().last()?.parse().ok()
    })
    .await
}

fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

#[tokio::test]
async fn a_cancel_ends_an_installation_and_another_job_is_not_harmed() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    endless(&here)?;
    here.write("s.py", "print('it ran')\n")?;
    let job = here.rgrid(&["run", "-d", "s.py"])?.line()?;
    let build = building(&grid, &here).await?;
    ensure!(here.rgrid(&["cancel", &job])?.code == 0);
    assert_eq!(grid.ended(&job).await?["state"], "cancelled");
    grid.eventually("the build is gone", async || (!lives(build)).then_some(())).await?;
    let file = saying(&here, "hail", "hello")?;
    here.write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    let came = here.rgrid(&["run", "s.py"])?;
    assert_eq!((came.code, came.out().as_str()), (0, "it ran\n"), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn an_installation_that_takes_too_long_is_ended_and_said() -> Result<()> {
    let mut grid = Grid::start().await?;
    grid.kill(Part::Runner(1))?;
    grid.run_with(Part::Runner(1), &["--install-timeout", "3s"])?;
    let here = Here::of(&grid)?;
    endless(&here)?;
    let came = here.write("s.py", "")?.rgrid(&["run", "s.py"])?;
    ensure!(came.code == 126 && came.err().contains("--install-timeout"), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn a_runner_that_dies_while_it_installs_leaves_nothing_that_is_used() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    endless(&here)?;
    here.write("s.py", "print('it ran')\n")?;
    let mut run = here.command(&["run", "s.py"]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let build = building(&grid, &here).await?;
    let packages = grid.dir().join("runner-1/packages");
    ensure!(fs::read_dir(&packages)?.count() == 1, "it is being made");
    grid.kill(Part::Runner(1))?;
    grid.eventually("the build is gone", async || (!lives(build)).then_some(())).await?;
    grid.run(Part::Runner(1))?;
    // The same job, again by the next session, and again not at its end.
    grid.eventually("it is built again", async || {
        let builds = fs::read_to_string(here.path().join("builds")).ok()?;
        (builds.lines().count() >= 2).then_some(())
    })
    .await?;
    ensure!(fs::read_dir(&packages)?.count() == 1, "what was left half done is gone");
    ensure!(!grid.log(Part::Runner(1)).contains(INSTALLED));
    run.kill()?;
    run.wait()?;
    Ok(())
}
