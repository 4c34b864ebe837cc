//! A result that is there already.

use std::fs;

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use crate::cli::here::Here;

const SCRIPT: &str = "import os, sys\nprint(os.urandom(8).hex(), os.environ.get('A'))\nopen('out.txt', 'w').write(sys.argv[1])\n";

async fn jobs(grid: &Grid) -> Result<usize> {
    grid.projected().await?;
    Ok(grid.get("jobs").await?["jobs"].as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn a_result_that_is_there_is_taken_and_anything_else_runs() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", SCRIPT)?.write("in.txt", "1")?;
    let reuse = |options: &[&str]| here.rgrid(&[&["run", "--reuse"], options, &["s.py", "in.txt"]].concat());
    let first = reuse(&[])?;
    ensure!(first.code == 0 && first.err().is_empty(), "nothing was there: {}", first.err());
    assert_eq!(jobs(&grid).await?, 1);

    // Limits, names and marks make no other result. The outputs are here again.
    fs::remove_file(here.path().join("out.txt"))?;
    let again = reuse(&["--timeout", "1h", "--label", "x=y", "--memory", "1GiB", "--name", "other"])?;
    assert_eq!((again.code, again.out()), (0, first.out()), "it printed what chance brought then");
    ensure!(
        again.err().contains("the same job ran before: this is the result of job "),
        "{}",
        again.err()
    );
    assert_eq!(here.read("out.txt")?, b"in.txt");
    let id = here.rgrid(&["run", "--reuse", "-d", "s.py", "in.txt"])?.line()?;
    ensure!(again.err().contains(&id), "{id}");
    assert_eq!(jobs(&grid).await?, 1, "nothing ran");

    // Whatever a result follows from, and whoever does not ask, makes a job.
    for options in [
        &["--env", "A=b"][..],
        &["--runtime", "python", "--executor", "process"],
        &["--namespace", "other"],
    ] {
        let came = reuse(options)?;
        ensure!(
            came.code == 0 && came.out() != first.out() && came.err().is_empty(),
            "{options:?}: {}",
            came.err()
        );
    }
    let plain = here.rgrid(&["run", "s.py", "in.txt"])?;
    ensure!(plain.out() != first.out(), "it was not asked for");
    here.write("in.txt", "2")?;
    ensure!(reuse(&[])?.err().is_empty(), "its input changed");
    assert_eq!(jobs(&grid).await?, 5, "without the other namespace's");

    // A failure is no result.
    here.write("f.py", "import sys\nsys.exit(3)\n")?;
    for _ in 0..2 {
        let came = here.rgrid(&["run", "--reuse", "f.py"])?;
        ensure!(came.code == 3 && came.err().is_empty(), "{}", came.err());
        grid.projected().await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_tables_nothing_is_reused_and_everything_runs() -> Result<()> {
    let nowhere = vec![("RGRID_DATABASE_URL", "postgres://rgrid@127.0.0.1:9/rgrid".to_owned())];
    let mut grid = Grid::start_with(&[Part::Api, Part::Watcher], nowhere).await?;
    grid.run(Part::Runner(1))?;
    let here = Here::of(&grid)?;
    here.write("s.py", SCRIPT)?.write("in.txt", "1")?;
    for _ in 0..2 {
        let came = here.rgrid(&["run", "--reuse", "s.py", "in.txt"])?;
        ensure!(came.code == 0 && !came.err().contains("ran before"), "{}", came.err());
    }
    Ok(())
}

#[tokio::test]
async fn of_a_batch_only_what_is_new_runs() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("up.py", "import sys\nopen('up', 'w').write(open(sys.argv[1]).read().upper())\n")?;
    for name in ["a", "b", "c"] {
        here.write(&format!("data/{name}"), name)?;
    }
    let run = |options: &[&str]| here.rgrid(&[&["run", "--reuse", "--batch", "data/*"], options, &["up.py"]].concat());
    let first = run(&[])?;
    ensure!(first.code == 0 && !first.err().contains("ran before"), "{}", first.err());
    grid.projected().await?;
    assert_eq!(jobs(&grid).await?, 3);
    // One that changed, one that is new, and the outputs of the others brought again.
    here.write("data/b", "changed")?.write("data/d", "d")?;
    fs::remove_dir_all(here.path().join("outputs"))?;
    let second = run(&["--parallel", "2"])?;
    ensure!(
        second.code == 0 && second.err().contains("2 of 4 jobs ran before") && second.err().contains("2 of 2 succeeded"),
        "{}",
        second.err()
    );
    for (name, content) in [("a", "A"), ("b", "CHANGED"), ("c", "C"), ("d", "D")] {
        assert_eq!(here.read(&format!("outputs/{name}/up"))?, content.as_bytes(), "{name}");
    }
    assert_eq!(jobs(&grid).await?, 5);
    let third = run(&["--json"])?;
    ensure!(third.json()?["reused"].as_array().map(Vec::len) == Some(4), "{}", third.out());
    assert_eq!(jobs(&grid).await?, 5, "nothing ran");
    Ok(())
}
