//! Ctrl-C while a job runs: cancel, detach, or ask.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use grid_tests::grid::Grid;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::here::{Came, Here};

/// Ends only when its file is there, so that nothing depends on time.
const SLOW: &str =
    "import os, sys, time\nprint('begun', flush=True)\nwhile not os.path.exists(sys.argv[1]):\n    time.sleep(0.01)\nprint('done')\n";

/// Starts a run, and waits until its script has begun.
fn begin(mut command: Command) -> Result<(Child, BufReader<std::process::ChildStdout>)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    assert_eq!(line, "begun\n");
    Ok((child, out))
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

fn end(child: Child, mut out: BufReader<std::process::ChildStdout>) -> Result<Came> {
    let mut rest = Vec::new();
    out.read_to_end(&mut rest)?;
    let mut came: Came = child.wait_with_output()?.into();
    came.out = rest;
    Ok(came)
}

#[tokio::test]
async fn without_a_terminal_an_interrupt_cancels() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", SLOW)?;
    for kind in [Signal::INT, Signal::TERM] {
        let (child, out) = begin(here.command(&["run", "slow.py", "never"]))?;
        signal(&child, kind)?;
        let came = end(child, out)?;
        assert_eq!((came.code, came.out()), (130, String::new()), "{}", came.err());
        assert!(came.err().contains("cancelled"), "{}", came.err());
        let status = here.rgrid(&["status", "last", "--json"])?.json()?;
        assert_eq!(status["state"], "cancelled");
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupt_detaches_where_that_was_asked_for() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", SLOW)?;
    let go = grid.dir().join("go").display().to_string();
    let (child, out) = begin(here.command(&["run", "--detach-on-interrupt", "slow.py", &go]))?;
    signal(&child, Signal::INT)?;
    let came = end(child, out)?;
    assert_eq!(came.code, 130, "{}", came.err());
    assert!(came.err().contains("continues; follow it with `rgrid logs -f"), "{}", came.err());
    let status = here.rgrid(&["status", "last", "--json"])?.json()?;
    assert_eq!(status["state"], "running");
    std::fs::write(&go, "")?;
    let logs = here.rgrid(&["logs", "-f", "last"])?;
    assert_eq!((logs.code, logs.out()), (0, "begun\ndone\n".to_owned()));
    Ok(())
}

#[tokio::test]
async fn on_a_terminal_an_interrupt_asks() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", SLOW)?;
    // What is typed when the question stands, the exit code, and where the job is then.
    let cases = [
        ("\r", 130, "running"),
        ("\u{1b}[B\r", 130, "cancelled"),
        ("\u{3}", 130, "cancelled"),
    ];
    for (typed, code, state) in cases {
        let run = here.command(&["run", "slow.py", "never"]);
        let mut command = Command::new("python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/grid/scripts/terminal.py"))
            .current_dir(here.path());
        command
            .env_clear()
            .envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("TERM", "xterm");
        command
            .arg(json!(["begun", "\u{3}", "The job has not ended", typed]).to_string())
            .arg(run.get_program())
            .args(run.get_args());
        let output = command.output()?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{typed:?}: {shown}");
        let job = here.rgrid(&["list", "--limit", "1", "--json"])?.json()?["jobs"][0].clone();
        let id = job["id"].as_str().context("no job")?.to_owned();
        assert_eq!(
            here.rgrid(&["status", &id, "--json"])?.json()?["state"],
            state,
            "{typed:?}: {shown}"
        );
        if state == "running" {
            assert!(shown.contains("continues; follow it"), "{shown}");
            here.rgrid(&["cancel", &id])?.line()?;
            grid.ended(&id).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn output_that_nobody_reads_ends_the_job() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("chatty.py", "while True:\n    print('x' * 100)\n")?;
    let mut child = here
        .command(&["run", "chatty.py"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let came: Came = child.wait_with_output()?.into();
    assert_eq!((came.code, came.err()), (141, String::new()));
    let id = here.rgrid(&["status", "last", "--json"])?.json()?["id"]
        .as_str()
        .context("no id")?
        .to_owned();
    assert_eq!(grid.ended(&id).await?["state"], "cancelled");
    Ok(())
}
