//! A job once more, exactly.

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};
use serde_json::json;

use crate::cli::here::Here;

const SAME: &str =
    "import os, sys\nprint(sys.argv[1:], os.environ['A'], open(sys.argv[1]).read())\nopen('out.txt', 'w').write('made')\nsys.exit(3)\n";
const CHANCE: &str = "import os\nprint('head')\nopen('out.txt', 'w').write(os.urandom(8).hex())\nopen(os.urandom(4).hex(), 'w')\n";

#[tokio::test]
async fn a_rerun_repeats_exactly_and_verify_says_what_differs() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("same.py", SAME)?.write("in.txt", "input")?.write("chance.py", CHANCE)?;
    let arguments = [
        "run",
        "-d",
        "--env",
        "A=b",
        "--idempotency-key",
        "once",
        "--label",
        "x=y",
        "--after",
        "1s",
        "same.py",
        "in.txt",
        "--flag",
    ];
    let first = here.rgrid(&arguments)?.line()?;
    grid.eventually("it has ended", async || {
        (grid.get(&format!("jobs/{first}")).await.ok()?["state"] == "failed").then_some(())
    })
    .await?;
    // What it was made of is not needed here any more.
    here.write("same.py", "changed")?.write("in.txt", "changed")?;
    let came = here.rgrid(&["rerun", &first])?;
    assert_eq!(
        (came.code, came.out()),
        (3, "['in.txt', '--flag'] b input\n".to_owned()),
        "{}",
        came.err()
    );
    assert_eq!(here.read("out.txt")?, b"made");
    let id = here.rgrid(&["rerun", "-d", &first])?.line()?;
    ensure!(id != first, "it is a job of its own");
    let again = grid.ended(&id).await?;
    assert_eq!(again["origin"], json!({"job": first, "kind": "rerun"}));
    assert_eq!(again["labels"], json!({"x": "y"}));
    let same = here.rgrid(&["rerun", "--verify", &first])?;
    ensure!(
        same.code == 0 && same.out().contains("has the same result") && same.out().contains("1 output"),
        "{}{}",
        same.out(),
        same.err()
    );

    let chance = here.rgrid(&["run", "-d", "chance.py"])?.line()?;
    grid.ended(&chance).await?;
    let differs = here.rgrid(&["rerun", "--verify", &chance])?;
    let said = differs.out();
    ensure!(differs.code == 1 && said.contains("  changed out.txt\n"), "{said}{}", differs.err());
    ensure!(
        said.contains("  removed ") && said.contains("  added ") && !said.contains("stdout"),
        "{said}"
    );

    let waiting = here.rgrid(&["run", "-d", "--after", "1h", "chance.py"])?.line()?;
    let came = here.rgrid(&["rerun", "--verify", &waiting])?;
    ensure!(
        came.code == 1 && came.err().contains("is held, and has no result to compare with yet"),
        "{}",
        came.err()
    );
    let came = here.rgrid(&["rerun", "00000000-0000-7000-8000-000000000000"])?;
    ensure!(came.code == 1 && came.err().contains("does not exist"), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn a_rerun_runs_in_the_image_that_its_job_ran_in_by_digest() -> Result<()> {
    let env = vec![("RGRID_EXECUTOR", "docker".to_owned())];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "print('in a container')\n")?;
    let first = here.rgrid(&["run", "-d", "s.py"])?.line()?;
    let ran = grid.ended(&first).await?;
    let again = grid.ended(&here.rgrid(&["rerun", "-d", &first])?.line()?).await?;
    let environment = &ran["attempts"][0]["environment"];
    ensure!(
        environment.as_str().is_some_and(|environment| environment.contains("@sha256:")),
        "{ran}"
    );
    ensure!(again["image"] == *environment && again["state"] == "succeeded", "{again}");
    assert_eq!(again["attempts"][0]["environment"], *environment);
    Ok(())
}
