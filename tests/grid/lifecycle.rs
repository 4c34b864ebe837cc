//! A job's life on a whole grid: what a user sees of it.

use anyhow::{Context as _, Result};
use grid_tests::grid::Grid;
use serde_json::{Value, json};

fn event_types(types: &[&str]) -> Vec<String> {
    types.iter().map(|kind| format!("job.{kind}.v1")).collect()
}

#[tokio::test]
async fn a_script_runs_on_its_files_and_leaves_output_log_and_history() -> Result<()> {
    let grid = Grid::start().await?;
    let script = "import sys\nprint('read', open(sys.argv[1]).read().strip())\nprint('oops', file=sys.stderr)\nimport os\nos.makedirs('out/deep')\nopen('out/deep/é.txt','w').write('made')\nsys.exit(3)\n";
    let submitted = grid
        .submit(&json!({
            "command": ["main.py", "data/in.txt"],
            "runtime": "python",
            "executor": "process",
            "files": [{ "path": "main.py", "content": script }, { "path": "data/in.txt", "content": "höhö\n" }],
        }))
        .await?;
    let id = submitted["id"].as_str().context("an id")?;
    let job = grid.ended(id).await?;
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(job["exit_code"], 3);
    assert_eq!(grid.printed(id, "stdout").await?, "read höhö\n".as_bytes());
    assert_eq!(grid.printed(id, "stderr").await?, b"oops\n");
    assert_eq!(
        grid.history(id).await?,
        event_types(&["submitted", "claimed", "started", "finished"])
    );
    let artifacts = grid.get(&format!("jobs/{id}/artifacts")).await?;
    let artifacts = artifacts["artifacts"].as_array().context("a list")?;
    assert_eq!(
        artifacts.iter().map(|artifact| &artifact["path"]).collect::<Vec<_>>(),
        ["out/deep/é.txt"],
        "only what is new"
    );
    Ok(())
}

#[tokio::test]
async fn ends_are_told_apart() -> Result<()> {
    let grid = Grid::start().await?;
    let cases: [(&str, Value, &str); 5] = [
        ("true", json!({}), "succeeded"),
        ("exit 7", json!({}), "failed"),
        ("kill -SEGV $$", json!({}), "failed"),
        ("trap '' TERM; sleep 60 & wait; sleep 60", json!({ "timeout_ms": 200 }), "timed_out"),
        (
            "exec python3 -c 'x = bytearray(300 << 20)'",
            json!({ "resources": { "memory_bytes": 64 << 20 } }),
            "out_of_memory",
        ),
    ];
    for (script, options, state) in cases {
        let mut submission = json!({ "command": ["/bin/sh", "-c", script], "executor": "process" });
        for (name, value) in options.as_object().into_iter().flatten() {
            submission[name] = value.clone();
        }
        let id = grid.submit(&submission).await?["id"].as_str().context("an id")?.to_owned();
        let job = grid.ended(&id).await?;
        assert_eq!(job["state"], state, "{script}: {job}");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_run_says_so_and_the_grid_goes_on() -> Result<()> {
    let grid = Grid::start().await?;
    let unrunnable = [
        json!({ "command": ["x.py"], "runtime": "cobol" }),
        json!({ "command": ["/no/such/program"] }),
        json!({ "command": ["./missing"], "executor": "process" }),
        json!({ "command": ["x"], "image": "registry.invalid/nothing:1" }),
    ];
    for submission in unrunnable {
        let id = grid.submit(&submission).await?["id"].as_str().context("an id")?.to_owned();
        let job = grid.ended(&id).await?;
        assert_eq!(job["state"], "failed", "{job}");
        assert!(job["message"].as_str().is_some_and(|message| message.len() > 20), "{job}");
    }
    let id = grid.shell("echo fine").await?;
    assert_eq!(grid.ended(&id).await?["state"], "succeeded");
    Ok(())
}

#[tokio::test]
async fn a_running_job_is_cancelled_and_so_is_a_waiting_one() -> Result<()> {
    let grid = Grid::start().await?;
    let running = grid.shell("sleep 300").await?;
    let other = grid.shell("sleep 300").await?;
    let waiting = grid.shell("sleep 300").await?;
    for id in [&running, &other] {
        grid.eventually("it runs", async || {
            (grid.get(&format!("jobs/{id}")).await.ok()?["state"] == "running").then_some(())
        })
        .await?;
    }
    for id in [&waiting, &running, &other] {
        let answer = grid.request(reqwest::Method::POST, &format!("jobs/{id}/cancel")).send().await?;
        assert!(answer.status().is_success(), "{answer:?}");
        assert_eq!(grid.ended(id).await?["state"], "cancelled");
    }
    assert_eq!(grid.history(&waiting).await?, event_types(&["submitted", "cancelled"]));
    Ok(())
}

#[tokio::test]
async fn a_chatty_job_loses_nothing_and_holds_up_nobody() -> Result<()> {
    let grid = Grid::start().await?;
    let chatty = grid.shell("head -c 60000000 /dev/zero | tr '\\0' x; echo; seq 200000 >&2").await?;
    let quiet = grid.shell("echo quiet").await?;
    assert_eq!(grid.ended(&quiet).await?["state"], "succeeded");
    assert_eq!(grid.ended(&chatty).await?["state"], "succeeded");
    let stdout = grid.printed(&chatty, "stdout").await?;
    assert_eq!(stdout.len(), 60_000_001);
    assert!(stdout[..60_000_000].iter().all(|byte| *byte == b'x'));
    let stderr = String::from_utf8(grid.printed(&chatty, "stderr").await?)?;
    assert!(
        stderr
            .lines()
            .map(str::parse)
            .eq((1..=200_000).map(Ok::<u32, std::num::ParseIntError>)),
        "lines in order, none lost"
    );
    assert_eq!(grid.printed(&quiet, "stdout").await?, b"quiet\n");
    Ok(())
}

/// While it runs, the end of what it printed is there; and everything, once it has ended.
#[tokio::test]
async fn a_loud_job_takes_nobodys_live_window() -> Result<()> {
    const PRINTED: usize = 100_000_000;
    const MOST_KEPT: usize = (32 << 20) + (1 << 20);
    let grid = Grid::start().await?;
    let go = grid.dir().join("go");
    let waits = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let quiet = grid.shell(&format!("echo quiet; {waits}")).await?;
    let loud = grid
        .shell(&format!("head -c {PRINTED} /dev/zero | tr '\\0' x; echo; {waits}"))
        .await?;
    // A client that reads while it is printed may see more: what comes in, and what has not been taken away yet.
    grid.eventually("the end of what it printed is there, and little before it", async || {
        let printed = grid.printed(&loud, "stdout").await.ok()?;
        (printed.ends_with(b"\n") && printed.len() <= MOST_KEPT).then_some(())
    })
    .await?;
    assert_eq!(grid.printed(&quiet, "stdout").await?, b"quiet\n");
    std::fs::write(&go, "")?;
    assert_eq!(grid.ended(&loud).await?["state"], "succeeded");
    assert_eq!(grid.printed(&loud, "stdout").await?.len(), PRINTED + 1);
    Ok(())
}

#[tokio::test]
async fn the_log_is_there_while_the_job_runs() -> Result<()> {
    let grid = Grid::start().await?;
    let go = grid.dir().join("go");
    let script = format!(
        "import os,time\nprint('first')\nwhile not os.path.exists({:?}): time.sleep(0.01)\nprint('second')",
        go.display().to_string()
    );
    let id = grid
        .submit(&json!({ "command": ["-c", script], "runtime": "python", "executor": "process" }))
        .await?["id"]
        .as_str()
        .context("an id")?
        .to_owned();
    grid.eventually("the first line is there, from a buffering interpreter", async || {
        (grid.printed(&id, "stdout").await.ok()? == b"first\n").then_some(())
    })
    .await?;
    std::fs::write(&go, "")?;
    grid.ended(&id).await?;
    assert_eq!(grid.printed(&id, "stdout").await?, b"first\nsecond\n");
    Ok(())
}

#[tokio::test]
async fn a_script_that_deletes_its_directory_or_leaves_children_ends_well() -> Result<()> {
    let grid = Grid::start().await?;
    let deleted = grid.shell("rm -rf \"$PWD\"; echo gone").await?;
    assert_eq!(grid.ended(&deleted).await?["state"], "succeeded");
    let marker = grid.dir().join("alive");
    let parent = grid
        .shell(&format!("(sleep 1; touch {}) & setsid sleep 300 & echo left", marker.display()))
        .await?;
    assert_eq!(grid.ended(&parent).await?["state"], "succeeded");
    assert_eq!(grid.printed(&parent, "stdout").await?, b"left\n");
    let next = grid.shell("sleep 1.5").await?;
    assert_eq!(grid.ended(&next).await?["state"], "succeeded");
    assert!(!marker.exists(), "what a job leaves running is ended with it");
    Ok(())
}
