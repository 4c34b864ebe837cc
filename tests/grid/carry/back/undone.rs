//! What a job replaced and removed can be undone, also after a kill.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Stdio,
    time::Duration,
};

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;

use super::{super::as_here::tree, replaced};
use crate::cli::here::Here;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_replaced_and_removed_is_undone_and_done_again() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os, shutil\nopen('d/a', 'w').write('new')\nshutil.rmtree('in')\n")?
        .write("d/other", "")?
        .write("d/a", "old")?
        .write("in/deep/x", "x")?;
    fs::set_permissions(here.path().join("in/deep/x"), fs::Permissions::from_mode(0o750))?;
    symlink("deep/x", here.path().join("in/l"))?;
    let laid = tree(&here.path())?;
    let came = here.rgrid(&["run", "s.py", "d/other", "in"])?;
    ensure!(came.code == 0, "{}", came.err());
    let gone = |here: &Here| !here.path().join("in").exists();
    ensure!(here.read("d/a")? == b"new" && gone(&here), "{}", came.err());
    let done = tree(&here.path())?;
    let undone = here.rgrid(&["undo", "last"])?.line()?;
    ensure!(undone.contains("d/a") && here.read("d/a")? == b"old", "{undone}");
    let mut left = tree(&here.path())?;
    left.retain(|path, _| !path.starts_with(".rgrid"));
    assert_eq!(left, laid);
    ensure!(fs::metadata(here.path().join("in/deep/x"))?.permissions().mode() & 0o777 == 0o750);
    here.rgrid(&["undo", "last"])?.line()?;
    assert_eq!(tree(&here.path())?, done, "done again");
    // Nothing of what was changed since is lost.
    here.write("d/a", "changed")?;
    let came = here.rgrid(&["undo", "last"])?;
    ensure!(
        came.code == 1 && came.err().contains("has changed since") && here.read("d/a")? == b"changed" && gone(&here),
        "{}",
        came.err()
    );
    let came = here.rgrid(&["undo", "--force", "last"])?;
    ensure!(
        came.code == 0 && here.read("d/a")? == b"old" && here.read("in/deep/x")? == b"x",
        "{}",
        came.err()
    );
    assert_eq!(replaced(&here)?, [("d/a".to_owned(), b"changed".to_vec())]);
    let came = here.rgrid(&["undo", "00000000-0000-7000-8000-000000000000"])?;
    ensure!(
        came.code == 1 && came.err().contains("replaced or removed no files here"),
        "{}",
        came.err()
    );
    Ok(())
}

/// A run that is killed while it replaces files leaves of each of them the old version, somewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_midst_loses_no_version() -> Result<()> {
    const FILES: usize = 300;
    let grid = Grid::start().await?;
    for (round, wait) in [0, 2, 5, 10, 20, 40].into_iter().enumerate() {
        let here = Here::of(&grid)?;
        here.write(
            "s.py",
            format!("for n in range({FILES}):\n    open(f'{{n}}.txt', 'w').write('new')\n"),
        )?;
        for n in 0..FILES {
            here.write(&format!("{n}.txt"), format!("mine {n}"))?;
        }
        let mut child = here.command(&["run", "s.py"]).stderr(Stdio::null()).spawn()?;
        let replaces = || here.path().join(".rgrid/replaced").exists();
        while !replaces() && child.try_wait()?.is_none() {
            std::thread::yield_now();
        }
        let until = std::time::Instant::now() + Duration::from_millis(wait);
        while std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        child.kill()?;
        child.wait()?;
        let kept: std::collections::HashMap<_, _> = replaced(&here)?.into_iter().collect();
        for n in 0..FILES {
            let name = format!("{n}.txt");
            let (now, old) = (here.read(&name)?, format!("mine {n}").into_bytes());
            ensure!(now == old || now == b"new", "round {round}: {name} is half written");
            ensure!(now == old || kept.get(&name) == Some(&old), "round {round}: {name} is lost");
        }
    }
    Ok(())
}
