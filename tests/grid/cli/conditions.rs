//! Jobs that start later, wait for others, are tried again, or run out of time.

use anyhow::{Context as _, Result};
use grid_tests::grid::Grid;
use serde_json::Value;

use super::here::Here;

/// Fails with the exit code 3 until it was tried as often as its second argument says; counts in a file of the grid's machine.
const FLAKY: &str = "\
import os, sys
count = len(os.listdir(sys.argv[1])) + 1
open(f'{sys.argv[1]}/{count}', 'w').close()
print('try', count, flush=True)
open('made.txt', 'w').write(str(count))
sys.exit(0 if count >= int(sys.argv[2]) else 3)
";

/// A directory on the grid's machine that is not sent along.
fn tally(grid: &Grid, name: &str) -> Result<String> {
    let dir = grid.dir().join(name);
    std::fs::create_dir(&dir)?;
    Ok(dir.display().to_string())
}

#[tokio::test]
async fn a_script_that_fails_is_tried_again_and_what_it_waits_for_is_said() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("flaky.py", FLAKY)?;
    let tries = tally(&grid, "tries")?;
    let run = [
        "run",
        "--retries",
        "3",
        "--backoff",
        "200ms",
        "--no-input",
        &tries,
        "flaky.py",
        &tries,
    ];
    let came = here.rgrid(&[&run[..], &["3"]].concat())?;
    assert_eq!((came.code, came.out()), (0, "try 1\ntry 2\ntry 3\n".to_owned()), "{}", came.err());
    let err = came.err();
    for words in [
        "failed with exit code 3; retrying in ",
        "(1 of 3 retries)",
        "(2 of 3 retries)",
        "attempt 2 starts on worker-1",
    ] {
        assert!(err.contains(words), "{words}: {err}");
    }
    assert_eq!(here.read("made.txt")?, b"3", "the outputs of the try that counts");
    // Only after the named codes, and not oftener than asked.
    let tries = tally(&grid, "one")?;
    let other = here.rgrid(&[
        "run",
        "--retries",
        "3",
        "--retry-on",
        "4,5",
        "--no-input",
        &tries,
        "flaky.py",
        &tries,
        "9",
    ])?;
    assert_eq!((other.code, other.out()), (3, "try 1\n".to_owned()), "{}", other.err());
    let tries = tally(&grid, "two")?;
    let used_up = here.rgrid(&[
        "run",
        "--retries",
        "1",
        "--backoff",
        "50ms",
        "--no-input",
        &tries,
        "flaky.py",
        &tries,
        "9",
    ])?;
    assert_eq!((used_up.code, used_up.out()), (3, "try 1\ntry 2\n".to_owned()), "{}", used_up.err());
    Ok(())
}

#[tokio::test]
async fn a_job_is_held_until_its_time_and_until_another_has_ended() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import sys\nprint('ran')\nsys.exit(int(sys.argv[1]))\n")?;
    let came = here.rgrid(&["run", "--after", "1s", "s.py", "0"])?;
    assert_eq!((came.code, came.out()), (0, "ran\n".to_owned()), "{}", came.err());
    assert!(came.err().contains("held until 20"), "{}", came.err());
    let at = (chrono::Local::now() + chrono::TimeDelta::seconds(2)).to_rfc3339();
    let first = here.rgrid(&["run", "-d", "--at", &at, "s.py", "7"])?.line()?;
    let shown = here.rgrid(&["list", "--state", "held"])?.line()?;
    assert!(shown.contains("WAITS") && shown.contains("held until 20"), "{shown}");
    assert!(here.rgrid(&["status", &first])?.line()?.contains("held until"));
    let after = here.rgrid(&["run", "--depends-on", "last:ended", "s.py", "0"])?;
    assert_eq!((after.code, after.out()), (0, "ran\n".to_owned()), "{}", after.err());
    assert!(
        after.err().contains(&format!("held until job {first} has ended")),
        "{}",
        after.err()
    );
    // One that waits for a success which never comes is cancelled, and says why.
    let never = here.rgrid(&["run", "--depends-on", &first, "s.py", "0"])?;
    assert_eq!((never.code, never.out()), (130, String::new()), "{}", never.err());
    assert!(
        never
            .err()
            .contains(&format!("job {first}, which this job waits for, ended as failed")),
        "{}",
        never.err()
    );
    let history = here.rgrid(&["history", "last"])?.line()?;
    assert!(history.contains(&format!("until job {first} has succeeded")), "{history}");
    Ok(())
}

#[tokio::test]
async fn each_clock_ends_a_job_that_takes_too_long() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", "import time\ntime.sleep(60)\n")?;
    let queue = here.rgrid(&["run", "--queue", "nobody", "--queue-timeout", "1s", "slow.py"])?;
    assert_eq!(queue.code, 124, "{}", queue.err());
    assert!(
        queue.err().contains("no worker claimed it within its queue timeout of 1 s"),
        "{}",
        queue.err()
    );
    let total = here.rgrid(&["run", "--total-timeout", "1s", "slow.py"])?;
    assert_eq!(total.code, 124, "{}", total.err());
    assert!(total.err().contains("total timeout of 1 s"), "{}", total.err());
    let attempt = here.rgrid(&["run", "--timeout", "500ms", "--retries", "1", "--backoff", "50ms", "slow.py"])?;
    assert_eq!(attempt.code, 124, "{}", attempt.err());
    assert!(
        attempt.err().contains("exceeded its timeout of 0.5 s; retrying in"),
        "{}",
        attempt.err()
    );
    let shown = here.rgrid(&["list", "--state", "timed_out"])?.line()?;
    assert!(shown.lines().count() == 4 && shown.contains("queue timeout of 1 s"), "{shown}");
    // The one that no worker ever took can be given another chance.
    let json = here
        .rgrid(&["list", "--state", "timed_out", "--queue", "nobody", "--json"])?
        .json()?;
    let id = json.pointer("/jobs/0/id").and_then(Value::as_str).context("no id")?.to_owned();
    assert_eq!(here.rgrid(&["requeue", &id])?.line()?, format!("{id} is queued again"));
    Ok(())
}

#[tokio::test]
async fn the_grace_that_was_asked_for_is_given_when_a_job_is_cancelled() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    // Asked to end, it takes a moment to put its things in order.
    let tidy = "import signal, sys, time\ndef end(*_):\n    time.sleep(1)\n    open('tidy.txt', 'w').write('x')\n    sys.exit(0)\n\
        signal.signal(signal.SIGTERM, end)\nopen(sys.argv[1], 'w').close()\ntime.sleep(60)\n";
    here.write("tidy.py", tidy)?;
    for (grace, files) in [("20s", 1), ("100ms", 0)] {
        let begun = grid.dir().join(grace);
        let id = here
            .rgrid(&["run", "-d", "--grace", grace, "tidy.py", &begun.display().to_string()])?
            .line()?;
        grid.eventually("it runs", async || begun.exists().then_some(())).await?;
        let said = here.rgrid(&["cancel", &id])?.line()?;
        assert_eq!(said, format!("{id} is cancelled; it ran on worker-1"));
        let artifacts = here.rgrid(&["download", &id, "--json", "--list"])?.json()?;
        assert_eq!(artifacts["artifacts"].as_array().map(Vec::len), Some(files), "{grace}: {artifacts}");
    }
    Ok(())
}

#[tokio::test]
async fn several_jobs_are_cancelled_wherever_they_stand() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import time\nprint('begun', flush=True)\ntime.sleep(60)\n")?
        .write("done.py", "")?;
    let held = here.rgrid(&["run", "-d", "--after", "1h", "s.py"])?.line()?;
    let waiting = here.rgrid(&["run", "-d", "--queue", "nobody", "s.py"])?.line()?;
    let running = here.rgrid(&["run", "-d", "s.py"])?.line()?;
    grid.get(&format!("jobs/{running}?wait=30s&until=started")).await?;
    let done = here.rgrid(&["run", "-d", "done.py"])?.line()?;
    grid.ended(&done).await?;
    let came = here.rgrid(&["cancel", &held, &waiting, &running, &done, "--reason", "enough"])?;
    let expected = format!("{held} is cancelled\n{waiting} is cancelled\n{running} is cancelled; it ran on worker-1\n");
    assert_eq!((came.code, came.out()), (1, expected), "{}", came.err());
    assert!(
        came.err().contains(&format!("cannot cancel {done}")) && came.err().contains("has already ended as succeeded"),
        "{}",
        came.err()
    );
    // And once more: nothing changes, and that is well.
    let again = here.rgrid(&["cancel", &held, &waiting, &running])?;
    assert_eq!((again.code, again.err()), (0, String::new()), "{}", again.out());
    let why = here.rgrid(&["list", "--state", "cancelled"])?.line()?;
    assert_eq!(why.matches("cancelled: enough").count(), 3, "{why}");
    Ok(())
}
