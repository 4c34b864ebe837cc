//! What a job removed or replaced stays where the user needs it.

use std::{fs, os::unix::fs::symlink, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::Grid;

use super::replaced;
use crate::cli::here::{Came, Here};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_removed_stays_where_it_was_changed_or_is_to_stay() -> Result<()> {
    let grid = Grid::start().await?;
    let removes = "import os, sys, time\nos.remove('in/x')\nopen('in/z', 'w').write('z')\nos.remove('y')\nif len(sys.argv) > 3:\n    print('ready', flush=True)\n    time.sleep(300)\n";
    let lay = || -> Result<Here> {
        let here = Here::of(&grid)?;
        here.write("s.py", removes)?.write("in/x", "x")?.write("y", "y")?;
        Ok(here)
    };
    let left = |here: &Here| ["in/x", "y"].map(|name| here.path().join(name).exists());
    let here = lay()?;
    let came = here.rgrid(&["run", "--keep-deleted", "s.py", "in", "y"])?;
    ensure!(
        came.code == 0 && left(&here) == [true, true] && here.read("in/z")? == b"z",
        "{}",
        came.err()
    );
    let here = lay()?;
    let came = here.rgrid(&["run", "--output", "in/*", "s.py", "in", "y"])?;
    ensure!(came.code == 0 && left(&here) == [false, true], "{}", came.err());
    let here = lay()?;
    let came = here.rgrid(&["run", "--no-outputs", "s.py", "in", "y"])?;
    ensure!(came.code == 0 && left(&here) == [true, true], "{}", came.err());
    // A job that was killed removes nothing here.
    let here = lay()?;
    let came = here.rgrid(&["run", "--timeout", "2s", "s.py", "in", "y", "wait"])?;
    ensure!(came.code == 124 && left(&here) == [true, true], "{}", came.err());
    ensure!(
        came.err()
            .contains("2 files that the job removed stay here, because the job did not end on its own"),
        "{}",
        came.err()
    );
    // Nor is anything removed that was changed since it was sent.
    let here = lay()?;
    let waits = "import os, time\nprint('ready', flush=True)\nwhile not os.path.exists(os.environ['GO']):\n    time.sleep(0.01)\n";
    here.write("s.py", format!("{waits}{removes}"))?;
    let go = here.beside("go");
    let mut child = here
        .command(&["run", "--env", &format!("GO={}", go.display()), "s.py", "in", "y"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().context("a pipe")?, &mut line)?;
    here.write("y", "changed")?;
    std::fs::write(&go, "")?;
    let came: Came = child.wait_with_output()?.into();
    ensure!(left(&here) == [false, true] && here.read("y")? == b"changed", "{}", came.err());
    ensure!(
        came.code == 0 && came.err().contains(": y (it has changed since it was sent)"),
        "{}",
        came.err()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_elsewhere_is_removed_there_and_nowhere_behind_a_link() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os, sys\nfor a in sys.argv[1:]:\n    os.remove(a)\n")?
        .write("r.py", "import os, sys\nos.remove(sys.argv[1])\n")?
        .write("../other/x", "x")?
        .write("../site/a/b", "b")?
        .write("x", "mine")?;
    let came = here.rgrid(&["run", "s.py", "../other/x"])?;
    ensure!(
        came.code == 0 && here.read("x")? == b"mine" && here.read("../other/x").is_err(),
        "{}",
        came.err()
    );
    here.write(
        "s.py",
        "import os, sys\nos.remove(sys.argv[1] + '/a/b')\nopen(sys.argv[1] + '/c', 'w').write('c')\n",
    )?;
    // By the name of a link of one's own, it is the link that is removed.
    symlink("../other/c", here.path().join("own"))?;
    here.write("../other/c", "c")?;
    let came = here.rgrid(&["run", "r.py", "own"])?;
    ensure!(
        came.code == 0 && !here.path().join("own").is_symlink() && here.read("../other/c")? == b"c",
        "{}",
        came.err()
    );
    here.rgrid(&["undo", "last"])?.line()?;
    ensure!(fs::read_link(here.path().join("own"))? == Path::new("../other/c"));
    let came = here.rgrid(&["run", "s.py", "../site"])?;
    ensure!(
        came.code == 0 && here.read("../site/a/b").is_err() && here.read("../site/c")? == b"c",
        "{}",
        came.err()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_not_sent_is_kept_by_a_success_and_left_alone_by_a_failure() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import sys\nopen('stock.db', 'w').write('of the job')\nopen('log/run.log', 'w') if len(sys.argv) > 2 else None\nsys.exit(int(sys.argv[1]))\n")?
        .write("stock.db", "mine")?;
    // A failure.
    let came = here.rgrid(&["run", "s.py", "3"])?;
    ensure!(came.code == 3 && here.read("stock.db")? == b"mine", "{}", came.err());
    let job = here.rgrid(&["list", "--all", "--json"])?.json()?;
    let job = job["jobs"][0]["id"].as_str().context("an id")?.to_owned();
    let beside = format!("stock.db.rgrid-{job}");
    ensure!(
        here.read(&beside)? == b"of the job" && came.err().contains(&beside),
        "{}",
        came.err()
    );
    ensure!(
        came.err().lines().filter(|line| line.starts_with("rgrid:")).count() == 1,
        "{}",
        came.err()
    );
    ensure!(!here.path().join(".rgrid").exists());
    fs::remove_file(here.path().join(&beside))?;
    // A success.
    let came = here.rgrid(&["run", "s.py", "0"])?;
    ensure!(came.code == 0 && here.read("stock.db")? == b"of the job", "{}", came.err());
    assert_eq!(replaced(&here)?, [("stock.db".to_owned(), b"mine".to_vec())]);
    ensure!(here.read(".rgrid/.gitignore")? == b"*\n");
    let line = came
        .err()
        .lines()
        .find(|line| line.contains("replaced"))
        .context("a line")?
        .to_owned();
    let undo = line.split('`').nth(1).context("a command")?.to_owned();
    ensure!(
        line.starts_with("rgrid: replaced 1 file that was not sent (stock.db); ") && undo.starts_with("rgrid undo "),
        "{line}"
    );
    // What a job left is not a file of the user's: the next one replaces it, and says nothing.
    here.write("s.py", "open('stock.db', 'w').write('of another job')\n")?;
    let came = here.rgrid(&["run", "s.py"])?;
    ensure!(
        came.code == 0 && came.err().is_empty() && here.read("stock.db")? == b"of another job",
        "{}",
        came.err()
    );
    ensure!(replaced(&here)?.len() == 1);
    // But for what the user made of it.
    here.write("stock.db", "mine again")?
        .write("s.py", "open('stock.db', 'w').write('of a third job')\n")?;
    let came = here.rgrid(&["run", "s.py"])?;
    ensure!(
        came.err().contains("replaced 1 file") && replaced(&here)?.len() == 2,
        "{}",
        came.err()
    );
    // What is kept is never sent.
    let planned = here.rgrid(&["run", "--dry-run", "--json", "--workdir", "s.py"])?;
    ensure!(!planned.out().contains(".rgrid"), "{}", planned.out());
    Ok(())
}
