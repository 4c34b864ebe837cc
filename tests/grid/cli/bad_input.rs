//! Bad input: each ends in a clear message and the right exit code, and the grid stays healthy.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, rgrid};

use super::here::{Came, Here};

/// Arguments, the exit code, and what the message must say.
type Case<'a> = (&'a [&'a str], i32, &'a [&'a str]);

const BAD: [Case<'static>; 33] = [
    (&["run", "missing.py"], 2, &["there is no script `missing.py`"]),
    (
        &["run", "../missing\nin two.py"],
        2,
        &["there is no script `../missing\\nin two.py`"],
    ),
    (&["run", "--cpus", "2", "s.py"], 2, &["has no option `--cpus`"]),
    (&["run", "data"], 2, &["`data` is a directory, not a script"]),
    (
        &["run", "--include", "*.nothing", "s.py"],
        2,
        &["--include `*.nothing` matches no file"],
    ),
    (&["run", "--exclude", "a[b", "s.py"], 2, &["--exclude `a[b` is not a glob"]),
    (
        &["run", "--input", "nowhere=x", "s.py"],
        2,
        &["there is no file or directory `nowhere`"],
    ),
    (
        &["run", "-i", "nowhere", "s.py"],
        2,
        &["cannot read nowhere for standard input", "--stdin"],
    ),
    (&["run", "-i", "data", "s.py"], 2, &["data is not a file"]),
    (&["run", "--no-input", "other", "s.py", "data"], 2, &["--no-input other"]),
    (&["run", "notes"], 2, &["cannot determine the runtime of `notes`", "--runtime"]),
    (&["run", "--memory", "-1", "s.py"], 2, &["--memory", "512MB"]),
    (&["run", "--memory", "12XB", "s.py"], 2, &["12XB", "--memory", "512MB"]),
    (&["run", "--memory", "1k", "s.py"], 2, &["--memory", "4MiB"]),
    (&["run", "--cpu", "0", "s.py"], 2, &["--cpu", "0.5"]),
    (&["run", "--timeout", "soon", "s.py"], 2, &["--timeout", "10m"]),
    (&["run", "--env", "NOT_SET_HERE", "s.py"], 2, &["--env", "NOT_SET_HERE=VALUE"]),
    (&["run", "--label", "odd", "s.py"], 2, &["--label", "KEY=VALUE"]),
    (&["run", "--queue", "a b", "s.py"], 2, &["the queue `a b`"]),
    (
        &["run", "--executor", "process", "--image", "x", "s.py"],
        2,
        &["an image needs the docker executor"],
    ),
    (&["run", "--runtime", "cobol", "s.py"], 126, &["knows no runtime `cobol`", "python"]),
    (
        &["run", "--url", "http://127.0.0.1:9", "s.py"],
        1,
        &["cannot reach the grid at http://127.0.0.1:9", "connection refused", "--url"],
    ),
    (&["run", "--retry-on", "75", "s.py"], 2, &["--retry-on", "--retries N"]),
    (&["run", "--retries", "2", "--retry-on", "0", "s.py"], 2, &["--retry-on"]),
    (
        &["run", "--retries", "2", "--backoff", "10s", "--max-backoff", "1s", "s.py"],
        2,
        &["--backoff is longer than --max-backoff"],
    ),
    (
        &["run", "--after", "1h", "--total-timeout", "10m", "s.py"],
        2,
        &["--total-timeout", "--after"],
    ),
    (&["run", "--at", "2020-01-01 08:00", "s.py"], 2, &["in the past", "--at"]),
    (&["run", "--depends-on", "last:never", "s.py"], 2, &["JOB:ended"]),
    (
        &["run", "--depends-on", "00000000-0000-7000-8000-000000000000", "s.py"],
        2,
        &["job 00000000-0000-7000-8000-000000000000", "does not exist in namespace default"],
    ),
    (&["requeue", "--state", "failed", "--all"], 2, &["failed cannot be requeued"]),
    (&["run", "--key", "wrong", "s.py"], 1, &["key"]),
    (&["status", "nothing"], 2, &["`nothing` is not a job"]),
    (&["logs", "00000000-0000-7000-8000-000000000000"], 1, &["does not exist"]),
];

fn check(came: &Came, case: &Case<'_>) -> Result<()> {
    let (arguments, code, words) = case;
    ensure!(
        came.code == *code,
        "{arguments:?}: exit code {} instead of {code}: {}",
        came.code,
        came.err()
    );
    ensure!(came.out.is_empty(), "{arguments:?}: {}", came.out());
    for word in *words {
        ensure!(came.err().contains(word), "{arguments:?}: no `{word}` in: {}", came.err());
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_meant_is_said_and_hurts_nobody() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "print('well')\n")?
        .write("data/x.csv", "")?
        .write("notes", "some notes\n")?;
    for case in &BAD {
        check(&here.rgrid(case.0)?, case)?;
    }
    // Nothing of all that holds up a good one.
    let came = here.rgrid(&["run", "s.py", "data/x.csv"])?;
    assert_eq!((came.code, came.out(), came.err()), (0, "well\n".to_owned(), String::new()));
    Ok(())
}

#[test]
fn no_grid_is_said_with_what_to_do() -> Result<()> {
    let here = Here::without_grid()?;
    here.write("s.py", "")?;
    check(
        &here.rgrid(&["run", "s.py"])?,
        &(&["run"], 1, &["there is no grid on this machine", "rgrid up", "--url"]),
    )?;
    check(&here.rgrid(&["list", "--url", "nonsense"])?, &(&["list"], 2, &["--url"]))?;
    check(&here.rgrid(&["run", "--memory", "-1", "s.py"])?, &(&["run"], 2, &["--memory"]))?;
    Ok(())
}

#[tokio::test]
async fn an_unreadable_file_is_named() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "print('well')\n")?.write("secret.csv", "x")?;
    fs::set_permissions(here.path().join("secret.csv"), fs::Permissions::from_mode(0o000))?;
    let mut command = here.command(&["run", "s.py", "secret.csv"]);
    if rustix::process::geteuid().is_root() {
        // Root may read everything: be somebody else, who must be able to enter, and to reach the program.
        fs::set_permissions(here.path(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(here.path().parent().context("no parent")?, fs::Permissions::from_mode(0o755))?;
        let program = here.path().join("../rgrid");
        fs::copy(rgrid(), &program)?;
        let mut other = std::process::Command::new(program);
        other
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other.current_dir(here.path()).stdin(Stdio::null()).uid(65534).gid(65534);
        command = other;
    }
    let came: Came = command.output()?.into();
    let words = [
        "cannot read secret.csv: permission denied",
        "make it readable",
        "--no-input secret.csv",
    ];
    check(&came, &(&["run"], 2, &words))
}

#[tokio::test]
async fn limits_are_told_apart_from_failures() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", "import time\nprint('begun', flush=True)\ntime.sleep(600)\n")?;
    let came = here.rgrid(&["run", "--timeout", "1s", "slow.py"])?;
    assert_eq!((came.code, came.out()), (124, "begun\n".to_owned()), "{}", came.err());
    assert!(came.err().contains("exceeded its timeout of 1 s"), "{}", came.err());

    here.write("fat.py", "data = []\nwhile True:\n    data.append(bytearray(10_000_000))\n")?;
    let came = here.rgrid(&["run", "--memory", "100MB", "fat.py"])?;
    assert_eq!(came.code, 137, "{}", came.err());
    assert!(came.err().contains("memory"), "{}", came.err());
    Ok(())
}
