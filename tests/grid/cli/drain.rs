//! Cordons and drains, with a real worker.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result};
use grid_tests::grid::{Grid, Part};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::here::{Came, Here};

#[tokio::test]
async fn a_cordoned_worker_takes_nothing_new_over_its_restarts_until_it_is_free_again() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "print('ran')\n")?;
    let said = here.rgrid(&["cordon", "worker-1", "--reason", "a slow disk"])?.line()?;
    assert_eq!(said, "worker-1 takes no new jobs");
    assert_eq!(
        here.rgrid(&["cordon", "worker-1"])?.line()?,
        "worker-1 takes no new jobs; it was already cordoned"
    );
    let shown = here.rgrid(&["workers"])?.line()?;
    assert!(shown.contains("cordoned: a slow disk"), "who says it sees it: {shown}");
    grid.kill(Part::Runner(1))?;
    grid.worker_is("worker-1", "lost").await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    let job = here.rgrid(&["run", "-d", "s.py"])?;
    assert!(job.err().contains("no worker serves queue default"), "{}", job.err());
    let view: Value = grid.get(&format!("jobs/{}?wait=2s&until=started", job.line()?)).await?;
    assert_eq!(view["state"], "queued", "nobody takes it");
    assert_eq!(here.rgrid(&["uncordon", "worker-1"])?.line()?, "worker-1 takes jobs again");
    assert_eq!(grid.ended(&job.line()?).await?["state"], "succeeded");
    let unknown = here.rgrid(&["cordon", "nobody", "../worker-1"])?;
    assert_eq!((unknown.code, unknown.out()), (1, String::new()));
    assert!(
        unknown.err().contains("worker nobody does not exist") && unknown.err().contains("letters, digits"),
        "{}",
        unknown.err()
    );
    Ok(())
}

#[tokio::test]
async fn a_drain_waits_for_what_runs_and_goes_on_without_who_waits() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "slow.py",
        "import os, sys, time\nwhile not os.path.exists(sys.argv[1]):\n    time.sleep(0.01)\n",
    )?;
    let go = grid.dir().join("go");
    let job = here.rgrid(&["run", "-d", "slow.py", &go.display().to_string()])?.line()?;
    grid.get(&format!("jobs/{job}?wait=30s&until=started")).await?;
    // Whoever waits says for what, and may leave.
    let mut waiting = here
        .command(&["drain", "worker-1", "--reason", "a new disk"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut err = BufReader::new(waiting.stderr.take().context("no stderr")?).lines();
    assert_eq!(err.next().context("nothing said")??, "rgrid: worker-1 takes no new jobs");
    let line = err.next().context("no more said")??;
    assert!(
        line.starts_with(&format!("rgrid: waiting for 1 job: {job} (slow.py, for ")),
        "{line}"
    );
    let pid = i32::try_from(waiting.id()).ok().and_then(Pid::from_raw).context("no pid")?;
    // Not INT, which whoever started the tests may have set to be ignored.
    kill_process(pid, Signal::TERM)?;
    assert!(!waiting.wait()?.success());
    let shown = async |words: &str| {
        let shown = here.rgrid(&["workers"]).ok()?.line().ok()?;
        shown.contains(words).then_some(())
    };
    grid.eventually("it is shown", async || shown("draining: a new disk").await).await?;
    // It drains on; who asks again waits on.
    let again = here
        .command(&["drain", "worker-1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    std::fs::write(&go, "")?;
    let came: Came = again.wait_with_output()?.into();
    assert_eq!(
        (came.code, came.out()),
        (0, "worker-1 is drained: no job runs there\n".to_owned()),
        "{}",
        came.err()
    );
    assert_eq!(grid.ended(&job).await?["state"], "succeeded");
    grid.eventually("it is shown", async || shown("drained: a new disk").await).await?;
    assert_eq!(here.rgrid(&["uncordon", "worker-1"])?.line()?, "worker-1 takes jobs again");
    Ok(())
}

#[tokio::test]
async fn at_its_deadline_a_drain_hands_on_what_has_not_ended() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", "import time\ntime.sleep(600)\n")?;
    let job = here.rgrid(&["run", "-d", "--max-losses", "1", "slow.py"])?.line()?;
    grid.get(&format!("jobs/{job}?wait=30s&until=started")).await?;
    grid.run(Part::Runner(2))?;
    grid.worker_is("worker-2", "live").await?;
    let came = here.rgrid(&["drain", "worker-1", "--deadline", "1s"])?;
    assert_eq!(came.code, 0, "{}", came.err());
    assert!(came.err().contains("will run on another worker"), "{}", came.err());
    let moved = grid
        .eventually("it runs elsewhere", async || {
            let view = grid.get(&format!("jobs/{job}")).await.ok()?;
            (view["state"] == "running" && view["worker"] == "worker-2").then_some(view)
        })
        .await?;
    assert_eq!(
        (&moved["attempt"], &moved["attempts"][0]["outcome"]["cause"]["orderly"]),
        (&Value::from(2), &Value::from(true)),
        "{moved}"
    );
    here.rgrid(&["cancel", &job])?.line()?;
    Ok(())
}
