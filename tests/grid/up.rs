//! `rgrid up`, `down` and `status`: the embedded grid, its supervisor, and what goes wrong.

mod disk;
mod refused;
mod runtimes;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// How long a fact may take to become true, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A nats-server that is new enough, was told how much memory it may take, and ends at once, saying why.
const BROKEN_NATS: &str = "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'nats-server: v9.9.9'; exit; }\n[ \"$GOMEMLIMIT\" -gt 1000000 ] || exit 8\necho 'no luck today' >&2\nexit 7\n";
/// One that never answers.
const STUCK_NATS: &str = "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'nats-server: v9.9.9'; exit; }\nexec sleep 1000\n";
/// One of before the bugs were mended that matter.
const OLD_NATS: &str = "#!/bin/sh\necho 'nats-server: v2.10.29'\n";

/// A data directory of its own; whatever runs in it is taken down at the end.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        Ok(Self { dir: tempfile::tempdir()? })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, verb: &str) -> Result<Command> {
        // The tests' own program lies in deps/, one below the binaries.
        let tests = std::env::current_exe()?;
        let rgrid = tests.ancestors().nth(2).context("no target directory")?.join("rgrid");
        ensure!(rgrid.is_file(), "{} is not there; run: cargo build -p rgrid", rgrid.display());
        let mut command = Command::new(rgrid);
        command.arg(verb).arg("--data-dir").arg(self.path()).stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, verb: &str, options: &[&str]) -> Result<Output> {
        Ok(self.command(verb)?.args(options).output()?)
    }

    fn up(&self) -> Result<String> {
        said(&self.run("up", &["--detach"])?, 0)
    }

    fn down(&self) -> Result<String> {
        said(&self.run("down", &[])?, 0)
    }

    fn status(&self) -> Result<Value> {
        let output = self.run("status", &["--json"])?;
        let status: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        ensure!(
            output.status.code() == Some(if status["up"] == true { 0 } else { 3 }),
            "{}",
            text(&output)
        );
        Ok(status)
    }

    /// Every process of the grid, by the name of its part.
    fn pids(&self) -> Result<Vec<(String, Pid)>> {
        let status = self.status()?;
        let parts = status["parts"].as_array().context("no parts")?;
        let pid = |part: &Value| {
            let pid = Pid::from_raw(part["pid"].as_i64()?.try_into().ok()?)?;
            Some((part["part"].as_str()?.to_owned(), pid))
        };
        Ok(parts.iter().filter_map(pid).collect())
    }

    fn pid(&self, part: &str) -> Result<Pid> {
        let pids = self.pids()?;
        let found = pids.iter().find(|(name, _)| name == part);
        found.map(|(_, pid)| *pid).with_context(|| format!("{part} does not run: {pids:?}"))
    }

    fn kill(&self, part: &str) -> Result<Pid> {
        let pid = self.pid(part)?;
        kill_process(pid, Signal::KILL)?;
        Ok(pid)
    }

    /// Writes a program into the directory. By a child, so that no other test's fork can hold it open for writing while it is
    /// executed (`ETXTBSY`).
    fn program(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        let written = Command::new("sh")
            .args(["-c", "printf %s \"$1\" >\"$2\" && chmod +x \"$2\"", "sh", content])
            .arg(&path)
            .status()?;
        ensure!(written.success());
        Ok(path)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path().join("logs").join(name)).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The test has failed already, or nothing runs.
        let _down = self.run("down", &[]);
    }
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("{}\n{out}{err}", output.status)
}

/// What a command said, if it ended with this code.
fn said(output: &Output, code: i32) -> Result<String> {
    ensure!(output.status.code() == Some(code), "{}", text(output));
    Ok(text(output))
}

/// Waits until something is so.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(start.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}

fn all_gone(pids: &[(String, Pid)]) -> Result<()> {
    eventually("every process is gone", || {
        Ok(pids.iter().all(|(_, pid)| test_kill_process(*pid).is_err()).then_some(()))
    })
}

#[test]
fn a_grid_comes_up_once_and_goes_down_whole() -> Result<()> {
    let place = Place::new()?;
    let first = place.up()?;
    let grid_file = place.path().join("grid.json");
    let grid: Value = serde_json::from_slice(&fs::read(&grid_file)?)?;
    let api = grid["api_url"].as_str().context("no API")?.trim_end_matches('/').to_owned();
    assert!(first.contains(&format!("The grid is up: {api}")), "{first}");
    let pids = place.pids()?;
    assert_eq!(pids.len(), 7, "{pids:?}");
    let status = place.status()?;
    assert!(
        status["parts"]
            .as_array()
            .is_some_and(|parts| parts.iter().all(|part| part["state"] == "running")),
        "{status:#}"
    );
    assert_eq!(status["workers"]["workers"][0]["id"], grid["worker"]);

    let again = place.up()?;
    assert!(again.contains(&format!("already up (pid {})", place.pid("supervisor")?)), "{again}");
    assert!(again.contains(&api), "{again}");

    assert!(place.down()?.contains("has stopped"));
    all_gone(&pids)?;
    assert_eq!(place.status()?["up"], false);
    assert!(place.down()?.contains("No grid is running"));

    place.up()?;
    let kept: Value = serde_json::from_slice(&fs::read(&grid_file)?)?;
    assert_eq!(kept, grid, "addresses and credentials stay");
    Ok(())
}

#[test]
fn credentials_are_for_the_owner_alone() -> Result<()> {
    let place = Place::new()?;
    place.up()?;
    let file = place.path().join("grid.json");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let grid: Value = serde_json::from_slice(&fs::read(file)?)?;
    let key = grid["api_key"].as_str().context("no key")?;
    let urls = ["nats_url", "nats_system_url", "database_url"].map(|name| grid[name].as_str().unwrap_or_default());
    let passwords = urls.iter().filter_map(|url| url.split(['@', ':']).nth(2));
    let secrets: Vec<&str> = passwords.chain([key]).filter(|secret| secret.len() > 20).collect();
    assert_eq!(secrets.len(), 4, "{urls:?}");
    for (part, pid) in place.pids()? {
        let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline"))?).into_owned();
        assert!(secrets.iter().all(|secret| !line.contains(secret)), "{part} shows a secret: {line}");
    }
    for log in fs::read_dir(place.path().join("logs"))? {
        let log = log?.path();
        let content = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        assert!(
            secrets.iter().all(|secret| !content.contains(secret)),
            "{} holds a secret",
            log.display()
        );
    }
    Ok(())
}

#[test]
fn what_crashes_is_noticed_logged_and_started_again() -> Result<()> {
    let place = Place::new()?;
    place.up()?;
    for part in ["nats", "postgres", "projector", "api", "watcher", "runner"] {
        let killed = place.kill(part)?;
        eventually(&format!("{part} is back"), || {
            let status = place.status()?;
            let found = status["parts"]
                .as_array()
                .and_then(|parts| parts.iter().find(|row| row["part"] == part))
                .cloned();
            let row = found.unwrap_or_default();
            let back = row["state"] == "running" && row["pid"] != killed.as_raw_nonzero().get() && row["restarts"] != 0;
            Ok((back && row["last_end"] == "signal 9").then_some(()))
        })?;
        let log = place.log("up.log");
        assert!(log.contains(&format!("{part} ended: signal 9")), "{log}");
    }
    eventually("the whole grid is up", || Ok((place.status()?["up"] == true).then_some(())))
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind_for_long() -> Result<()> {
    let place = Place::new()?;
    place.up()?;
    for verb in ["up", "down"] {
        let before = place.pids()?;
        let supervisor = place.kill("supervisor")?;
        eventually("the supervisor is gone", || {
            Ok(test_kill_process(supervisor).is_err().then_some(()))
        })?;
        assert_eq!(place.status()?["up"], false);
        assert_eq!(place.pids()?.len(), 6, "its children live on");
        let options: &[&str] = if verb == "up" { &["--detach"] } else { &[] };
        let output = said(&place.run(verb, options)?, 0)?;
        assert!(
            output.contains("nats, postgres, projector, api, watcher, runner")
                || output.contains("runner, projector, api, watcher, postgres, nats"),
            "{output}"
        );
        all_gone(&before)?;
        assert_eq!(place.pids()?.len(), if verb == "up" { 7 } else { 0 });
    }
    Ok(())
}

#[test]
fn in_the_foreground_ctrl_c_takes_it_down() -> Result<()> {
    let place = Place::new()?;
    let mut foreground: Child = place.command("up")?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    eventually("the grid is up", || Ok((place.status()?["up"] == true).then_some(())))?;
    let pids = place.pids()?;
    let pid = Pid::from_child(&foreground);
    assert!(pids.iter().any(|(part, found)| part == "supervisor" && *found == pid), "{pids:?}");
    kill_process(pid, Signal::INT)?;
    let ended = foreground.wait()?;
    assert!(ended.success(), "{ended}: {}", place.log("up.log"));
    all_gone(&pids)
}

#[test]
fn two_who_take_it_down_wait_for_the_same_end() -> Result<()> {
    let place = Place::new()?;
    place.up()?;
    let pids = place.pids()?;
    let down = || Ok::<_, anyhow::Error>(place.command("down")?.stdout(Stdio::null()).spawn()?);
    for mut one in [down()?, down()?] {
        assert!(one.wait()?.success());
    }
    let log = place.log("up.log");
    assert!(log.contains("going down") && !log.contains("killing"), "{log}");
    all_gone(&pids)
}

#[test]
fn a_second_ctrl_c_waits_for_nobody() -> Result<()> {
    let place = Place::new()?;
    let mut foreground = place.command("up")?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    eventually("the grid is up", || Ok((place.status()?["up"] == true).then_some(())))?;
    let pids = place.pids()?;
    // Frozen, it would end only when it is killed, after half a minute.
    kill_process(place.pid("runner")?, Signal::STOP)?;
    kill_process(Pid::from_child(&foreground), Signal::INT)?;
    eventually("it is going down", || Ok(place.log("up.log").contains("going down").then_some(())))?;
    kill_process(Pid::from_child(&foreground), Signal::INT)?;
    let start = Instant::now();
    foreground.wait()?;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    all_gone(&pids)
}

#[test]
fn an_interrupted_start_leaves_nothing_running() -> Result<()> {
    let place = Place::new()?;
    let stuck = place.program("stuck-nats-server", STUCK_NATS)?;
    let mut command = place.command("up")?;
    command
        .arg("--detach")
        .env("RGRID_NATS_SERVER", &stuck)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut starter = command.spawn()?;
    let pids = eventually("both servers run", || Ok(Some(place.pids()?).filter(|pids| pids.len() == 3)))?;
    kill_process(Pid::from_child(&starter), Signal::INT)?;
    assert_eq!(starter.wait()?.code(), Some(1));
    all_gone(&pids)?;
    assert_eq!(place.pids()?, []);
    Ok(())
}
