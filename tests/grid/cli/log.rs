//! `rgrid log`, on a real grid.

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::here::Here;

fn number(view: &Value, name: &str) -> Result<u64> {
    view[name].as_u64().ok_or_else(|| anyhow::anyhow!("{name}: {view}"))
}

#[tokio::test]
async fn the_log_says_how_full_it_is_and_keeps_the_bound_that_it_is_given() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "")?;
    here.rgrid(&["run", "s.py"])?.line()?;
    let words = here.rgrid(&["log"])?;
    for part in [
        "RGRID_EVENTS holds ",
        " events\n",
        "the first was stored ",
        " at this pace (no new jobs in ",
        "it accepts new jobs\n",
        "(90 %) new jobs are refused",
        "(95 %) no attempt starts",
        "heartbeats are kept for a day at most: since ",
        "what running jobs print is kept for a day at most: since ",
    ] {
        ensure!(words.out().contains(part), "{part}: {}", words.out());
    }
    let view = here.rgrid(&["log", "--json"])?.json()?;
    ensure!(view["takes"] == "everything", "{view}");
    // It is younger than an hour: all its events came in the last hour, and in the last day.
    let all = [number(&view, "events")?, number(&view, "bytes")?];
    for growth in [&view["hour"], &view["day"]] {
        assert_eq!([number(growth, "events")?, number(growth, "bytes")?], all, "{view}");
        ensure!(number(growth, "no_jobs_in_ms")? < number(growth, "full_in_ms")?, "{view}");
    }

    let little = here.rgrid(&["log", "--bound", "1MiB"])?;
    ensure!(
        little.code != 0 && little.err().contains("set it to at least 16777216 bytes"),
        "{}",
        little.err()
    );
    let much = here.rgrid(&["log", "--bound", "1000000TiB"])?;
    ensure!(much.code != 0 && much.err().contains("set a smaller one"), "{}", much.err());
    let set = here.rgrid(&["log", "--bound", "20MiB", "--json"])?.json()?;
    assert_eq!(
        (number(&set, "bound")?, number(&set, "no_jobs_above")?),
        (20 << 20, (20 << 20) / 100 * 90)
    );

    // Every service checks the streams when it starts.
    let parts = [Part::Api, Part::Projector, Part::Watcher, Part::Runner(1)];
    for part in parts {
        grid.kill(part)?;
    }
    grid.nats.restart().await?;
    for part in parts {
        grid.run(part)?;
    }
    grid.api_answers().await?;
    here.rgrid(&["run", "s.py"])?.line()?;
    assert_eq!(number(&here.rgrid(&["log", "--json"])?.json()?, "bound")?, 20 << 20);
    Ok(())
}

#[tokio::test]
async fn a_log_that_takes_no_new_jobs_says_so_and_takes_them_once_its_bound_is_raised() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "")?;
    here.rgrid(&["log", "--bound", "16MiB"])?.line()?;
    let filler = json!({ "command": ["x", "y".repeat(500_000)], "queue": "nobody" });
    let mut status = StatusCode::CREATED;
    while status == StatusCode::CREATED {
        status = grid.request(Method::POST, "jobs").json(&filler).send().await?.status();
    }
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    let view = here.rgrid(&["log", "--json"])?.json()?;
    ensure!(number(&view, "bytes")? <= number(&view, "no_jobs_above")?, "{view}");
    // What is small finds room for a while.
    let small = json!({ "command": ["x", "y".repeat(20_000)], "queue": "nobody" });
    while grid.request(Method::POST, "jobs").json(&small).send().await?.status() == StatusCode::CREATED {}
    let refused = here.rgrid(&["run", "s.py", &"z".repeat(25_000)])?;
    ensure!(
        refused.code != 0 && refused.err().contains("raise its bound: `rgrid log --bound"),
        "{}",
        refused.err()
    );
    let least = number(&here.rgrid(&["log", "--json"])?.json()?, "least_bound")?;
    let raised = here
        .rgrid(&["log", "--bound", &format!("{}", least + (1 << 20)), "--json"])?
        .json()?;
    ensure!(raised["takes"] == "everything", "{raised}");
    assert_eq!(here.rgrid(&["run", "s.py"])?.code, 0);
    Ok(())
}
