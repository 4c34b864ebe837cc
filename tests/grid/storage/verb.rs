//! `rgrid storage`, as a user meets it.

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;

use crate::cli::here::Here;

const SCRIPT: &str = "import sys\nprint('printed', len(open(sys.argv[1]).read()))\nopen('made.txt', 'w').write('made')\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_made_is_shown_expires_and_goes_and_its_log_stays() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", SCRIPT)?;
    here.write("in.txt", "12345")?;
    let empty = here.rgrid(&["storage"])?.line()?;
    for words in ["store nats://rgrid-files", "unused", "7d", "30d", "no storage pass has run yet"] {
        ensure!(empty.contains(words), "{words}: {empty}");
    }
    let kept = here.rgrid(&["run", "-d", "s.py", "in.txt"])?.line()?;
    let short = here.rgrid(&["run", "-d", "--keep-outputs", "1s", "s.py", "in.txt"])?.line()?;
    grid.ended(&kept).await?;
    grid.ended(&short).await?;
    let before = here.rgrid(&["storage"])?.line()?;
    for words in ["as it was found", "events in the log before now", "rgrid storage --now"] {
        ensure!(before.contains(words), "{words}: {before}");
    }
    ensure!(!before.contains(&kept), "{before}");
    let shown = here.rgrid(&["storage", "--now"])?.line()?;
    ensure!(shown.contains(&kept) && shown.contains(&short), "{shown}");
    ensure!(!shown.contains("as it was found"), "{shown}");
    let view = here.rgrid(&["storage", "--json"])?.json()?;
    assert_eq!(view["uses"]["ended_inputs"]["files"], 2, "{view}");

    // It has expired once a download says so.
    let said = grid
        .eventually("the outputs expire", async || {
            let fetched = here.rgrid(&["download", &short, "-o", "fetched"]).ok()?;
            (fetched.code == 1).then(|| fetched.err())
        })
        .await?;
    ensure!(said.contains("expired at") && said.contains("rgrid rerun"), "{said}");
    let listed = here.rgrid(&["download", &short, "--list"])?.line()?;
    ensure!(listed.contains("made.txt"), "{listed}");
    // The other job made the same content, which stays for it.
    ensure!(here.rgrid(&["download", &kept, "-o", "other"])?.code == 0);

    here.write("loose.txt", "nobody needs this")?;
    let job = here.rgrid(&["run", "-d", "s.py", "loose.txt"])?.line()?;
    grid.ended(&job).await?;
    let dry = here.rgrid(&["storage", "gc", "--dry-run", "--keep-inputs", "0s"])?.line()?;
    ensure!(dry.starts_with("would remove 0 files (0 B)"), "{dry}");
    let first = here.rgrid(&["storage", "gc", "--grace", "0s", "--keep-inputs", "0s"])?.line()?;
    ensure!(first.starts_with("removed ") && first.contains("in the store"), "{first}");
    grid.eventually("a pass removes the inputs", async || {
        let report = here
            .rgrid(&["storage", "gc", "--grace", "0s", "--keep-inputs", "0s", "--json"])
            .ok()?
            .json()
            .ok()?;
        (report["removed"]["files"].as_u64()? >= 2).then_some(())
    })
    .await?;
    let again = here.rgrid(&["rerun", &job])?;
    ensure!(again.code != 0 && again.err().contains("not in the store"), "{}", again.err());
    assert_eq!(here.rgrid(&["logs", &short])?.out(), "printed 5\n");
    let after = here.rgrid(&["storage"])?.line()?;
    ensure!(after.contains("the last pass was"), "{after}");
    // With its files sent again, it runs again.
    let ran = here.rgrid(&["run", "s.py", "loose.txt"])?;
    assert_eq!((ran.code, ran.out()), (0, "printed 17\n".to_owned()));
    Ok(())
}
