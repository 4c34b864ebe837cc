//! `rgrid doctor`, with a real grid.

use anyhow::Result;
use grid_tests::grid::{Grid, Part};

use super::here::Here;

#[tokio::test]
async fn a_grid_that_is_well_is_said_to_be_and_one_that_is_not_is_explained() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "")?;
    here.rgrid(&["run", "s.py"])?.line()?;
    grid.projected().await?;
    let well = grid
        .eventually("it is well", async || {
            let came = here.rgrid(&["doctor"]).ok()?;
            (came.code == 0 && came.out().contains("No problems found.")).then(|| came.out())
        })
        .await?;
    for words in [
        "nats-server 2.",
        "1 live worker;",
        "0 jobs with workers, 0 waiting",
        "Durability: one nats-server",
    ] {
        assert!(well.contains(words), "{words}: {well}");
    }
    grid.kill(Part::Watcher)?;
    grid.kill(Part::Projector)?;
    here.rgrid(&["run", "s.py"])?.line()?;
    let ill = grid
        .eventually("both are missed", async || {
            let came = here.rgrid(&["doctor"]).ok()?;
            (came.code == 1 && came.out().contains("ERROR    watcher") && came.out().contains("ERROR    projector")).then(|| came.out())
        })
        .await?;
    for words in ["no watcher runs", "makes no progress", "(since ", "to do: start it", "2 errors"] {
        assert!(ill.contains(words), "{words}: {ill}");
    }
    let findings = here.rgrid(&["doctor", "--json"])?;
    let findings: serde_json::Value = serde_json::from_slice(&findings.out)?;
    assert!(
        findings["findings"]
            .as_array()
            .is_some_and(|findings| findings.iter().any(|finding| finding["topic"] == "watcher"))
    );
    grid.kill(Part::Api)?;
    let away = here.rgrid(&["doctor"])?;
    assert_eq!(away.code, 1);
    assert!(
        away.out().contains("ERROR    api: cannot reach the grid") && away.out().contains("connection refused"),
        "{}",
        away.out()
    );
    Ok(())
}

#[test]
fn where_there_is_no_grid_that_is_said() -> Result<()> {
    let here = Here::without_grid()?;
    let came = here.rgrid(&["doctor"])?;
    assert!(
        came.code == 1 && came.err().contains("there is no grid on this machine"),
        "{}",
        came.err()
    );
    Ok(())
}
