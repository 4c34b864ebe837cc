//! Answers that are lost on their way: what was asked for is done once.

use anyhow::{Context as _, Result};
use grid_tests::{
    grid::{Grid, Part},
    wire::Wire,
};
use serde_json::Value;

use super::here::{Came, Here};

async fn wired(grid: &Grid) -> Result<Wire> {
    let [(_, url), _] = grid.access();
    Wire::to(url.trim_start_matches("http://")).await
}

fn over(here: &Here, wire: &Wire, words: &[&str]) -> Result<Came> {
    Ok(here.command(words).env("RGRID_URL", wire.url()).output()?.into())
}

fn jobs(here: &Here) -> Result<Vec<Value>> {
    let list = here.rgrid(&["list", "--json"])?.json()?;
    Ok(list["jobs"].as_array().context("no jobs")?.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_answer_was_lost_is_submitted_once() -> Result<()> {
    let grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    here.write("hello.py", "print('hello')\nopen('out.txt', 'w').write('made')\n")?;
    wire.lose_answer_to("POST /v1/jobs?");
    let came = over(&here, &wire, &["run", "hello.py"])?;
    assert_eq!((came.code, came.out()), (0, "hello\n".to_owned()), "{}", came.err());
    assert_eq!((wire.lost(), here.read("out.txt")?), (1, b"made".to_vec()));
    assert_eq!(jobs(&here)?.len(), 1);

    // Also where nothing had been answered before it, and with a key.
    for (words, expected) in [
        (&["run", "--program", "true"][..], 2),
        (&["run", "--idempotency-key", "k", "--program", "true"], 3),
    ] {
        wire.lose_answer_to("POST /v1/jobs?");
        let came = over(&here, &wire, words)?;
        assert_eq!(came.code, 0, "{}", came.err());
        assert_eq!(jobs(&here)?.len(), expected, "{words:?}");
    }
    assert_eq!(wire.lost(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_whose_answer_was_lost_has_its_way_once() -> Result<()> {
    let grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    let job = here.rgrid(&["run", "-d", "--program", "false"])?.line()?;
    grid.ended(&job).await?;
    let waiting = here.rgrid(&["run", "-d", "--after", "1h", "--program", "true"])?.line()?;
    let batch = here.rgrid(&["run", "-d", "--array", "1-2", "--program", "false"])?.line()?;
    let attached = here.rgrid(&["attach", &batch])?;
    assert_eq!(attached.code, 1, "{}", attached.err());
    let before = jobs(&here)?.len();
    let [rerun, cancel] = [("rerun", &job), ("cancel", &waiting)].map(|(verb, job)| format!("POST /v1/jobs/{job}/{verb} "));
    let retry = format!("POST /v1/batches/{batch}/retry ");
    // The request, the words, the exit code.
    let cases = [
        (rerun.as_str(), vec!["rerun", &job], 1),
        (&cancel, vec!["cancel", &waiting], 0),
        (&retry, vec!["retry", &batch], 0),
        ("POST /v1/workers/worker-1/cordon ", vec!["cordon", "worker-1"], 0),
        ("POST /v1/workers/worker-1/uncordon ", vec!["uncordon", "worker-1"], 0),
    ];
    for ((request, words, code), lost) in cases.into_iter().zip(1..) {
        wire.lose_answer_to(request);
        let came = over(&here, &wire, &words)?;
        assert_eq!((came.code, wire.lost()), (code, lost), "{words:?}: {}", came.err());
    }
    assert_eq!(jobs(&here)?.len(), before + 1 + 2, "one rerun, and the two of the batch");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_away_for_a_while_costs_no_submission_and_a_wrong_address_no_time() -> Result<()> {
    let mut grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    here.write("hello.py", "print('hello')\n")?;
    wire.lose_answer_to("POST /v1/jobs?");
    let child = here
        .command(&["run", "hello.py"])
        .env("RGRID_URL", wire.url())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    while wire.lost() == 0 {
        tokio::task::yield_now().await;
    }
    grid.kill(Part::Api)?;
    grid.run(Part::Api)?;
    let came: Came = child.wait_with_output()?.into();
    assert_eq!((came.code, came.out()), (0, "hello\n".to_owned()), "{}", came.err());
    assert_eq!(jobs(&here)?.len(), 1);

    let nobody: Came = here
        .command(&["run", "--program", "true"])
        .env("RGRID_URL", "http://127.0.0.1:1")
        .output()?
        .into();
    assert_eq!(nobody.code, 1);
    assert!(
        nobody.err().contains("cannot reach the grid") && !nobody.err().contains("Retrying"),
        "{}",
        nobody.err()
    );
    Ok(())
}
