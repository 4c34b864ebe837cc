//! Secrets: the script has them, and nobody else.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};
use serde_json::Value;

use crate::cli::here::{Came, Here};

/// What must not be found anywhere.
const TOKEN: &str = "tk-4711-hidden-value-4711";
const LINES: [&str; 3] = ["-----BEGIN HIDDEN-----", "bGluZSBvbmUgaGlkZGVu", "-----END HIDDEN-----"];
/// What is found wherever the environment is kept: shows that the search finds.
const OPEN: &str = "open-value-0815-open";

/// Says what it was given, so that only who knows it can tell; and prints it, in pieces too.
const SCRIPT: &str = "\
import hashlib, os, sys, time
token, pem = os.environ['TOKEN'], os.environ['PEM_FILE']
print(hashlib.sha256((token + pem).encode()).hexdigest())
print('out', token, flush=True)
print(pem, flush=True)
for piece in (token[:7], token[7:15], token[15:] + '\\n'):
    sys.stderr.write(piece)
    sys.stderr.flush()
    time.sleep(0.05)
print(pem.splitlines()[1])
";

/// A grid that keeps secrets, of workers with this executor.
async fn grid(executor: &'static str) -> Result<(Grid, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let key = dir.path().join("grid.key");
    let here = Here::without_grid()?;
    here.rgrid(&["secret".as_ref(), "keygen".as_ref(), key.as_os_str()])?.line()?;
    let env = vec![
        ("RGRID_SECRETS_KEY_FILE", key.display().to_string()),
        ("RGRID_EXECUTOR", executor.to_owned()),
    ];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    Ok((grid, dir))
}

fn set(here: &Here, arguments: &[&str], value: &str) -> Result<Came> {
    let mut command = here.command(&[&["secret", "set"], arguments].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no standard input")?.write_all(value.as_bytes())?;
    Ok(child.wait_with_output()?.into())
}

fn pem() -> String {
    LINES.join("\n")
}

/// Whether a directory holds these bytes anywhere.
fn holds(dir: &Path, needle: &str) -> Result<bool> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds(&path, needle)?
        } else {
            has(&fs::read(&path)?, needle)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Every row of every table, as text.
async fn tables(grid: &Grid) -> Result<String> {
    let pool = grid.postgres.pool().await?;
    let names: Vec<String> = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        .fetch_all(&pool)
        .await?;
    let mut all = String::new();
    for name in names {
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT t::text FROM \"{name}\" t")))
            .fetch_all(&pool)
            .await?;
        all.push_str(&rows.join("\n"));
    }
    Ok(all)
}

/// Every command line on this machine.
fn command_lines() -> Vec<u8> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .flat_map(|process| fs::read(process.path().join("cmdline")).unwrap_or_default())
        .collect()
}

/// Runs the script, and looks for what it was given wherever something is kept.
async fn nobody_else_has_it(executor: &'static str, options: &[&str]) -> Result<()> {
    let (grid, _key) = grid(executor).await?;
    let here = Here::of(&grid)?;
    here.write("s.py", SCRIPT)?;
    set(&here, &["TOKEN"], &format!("{TOKEN}\n"))?.line()?;
    set(&here, &["pem"], &pem())?.line()?;
    let open = format!("OPEN={OPEN}");
    let secrets = ["--secret", "TOKEN", "--secret", "PEM_FILE=pem", "--env", &open];
    let came = here.rgrid(&[&["run"], options, &secrets, &["s.py"]].concat())?;
    let hash = bus::ids::Digest::of(format!("{TOKEN}{}", pem()).as_bytes());
    assert_eq!((came.code, came.err()), (0, "***\n".to_owned()), "{}", came.out());
    let shown = came.out();
    assert_eq!(shown, format!("{hash}\nout ***\n***\n***\n"), "{executor}");

    // One more that is looked at while it runs.
    here.write(
        "wait.py",
        "import os, time\nprint(os.environ['TOKEN'], flush=True)\ntime.sleep(600)\n",
    )?;
    let job = here.rgrid(&[&["run", "-d"], options, &secrets, &["wait.py"]].concat())?.line()?;
    grid.eventually("it has printed", async || {
        (grid.printed(&job, "stdout").await.ok()? == b"***\n").then_some(())
    })
    .await?;
    let mut seen = command_lines();
    ensure!(has(&seen, "wait.py"), "its command line is not there");
    if executor == "docker" {
        let label = format!("label=rgrid.job={job}");
        let found = Command::new("docker").args(["ps", "-q", "--filter", &label]).output()?;
        let id = String::from_utf8(found.stdout)?;
        let inspected = Command::new("docker").args(["inspect", id.trim()]).output()?.stdout;
        ensure!(
            has(&inspected, OPEN),
            "its open variable is not shown: {}",
            String::from_utf8_lossy(&inspected)
        );
        seen.extend(inspected);
        let top = Command::new("docker").args(["top", id.trim(), "-eo", "args"]).output()?.stdout;
        seen.extend(top);
    }
    here.rgrid(&["cancel", &job])?;
    grid.ended(&job).await?;
    grid.projected().await?;

    let rows = tables(&grid).await?;
    ensure!(rows.contains(OPEN) && holds(grid.nats.dir(), OPEN)?, "the search finds nothing");
    seen.extend(rows.into_bytes());
    for part in [Part::Api, Part::Projector, Part::Watcher, Part::Runner(1)] {
        seen.extend(grid.log(part).into_bytes());
    }
    for verb in ["history", "logs", "status"] {
        let came = here.rgrid(&[verb, &job])?;
        seen.extend([came.out, came.err].concat());
    }
    for hidden in [&[TOKEN], &LINES[..]].concat() {
        ensure!(!has(&seen, hidden), "{hidden} is seen");
        ensure!(!holds(grid.nats.dir(), hidden)?, "{hidden} is in the streams or the store");
        ensure!(
            !holds(grid.dir(), hidden)?,
            "{hidden} is in a log or left in the worker's directory"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_its_secrets_and_nobody_else() -> Result<()> {
    nobody_else_has_it("process", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_secrets_and_nobody_else() -> Result<()> {
    nobody_else_has_it("docker", &["--image", "rgrid/python:3"]).await
}

#[tokio::test]
async fn secrets_are_listed_without_values_and_missed_where_they_are_not() -> Result<()> {
    let (grid, _key) = grid("process").await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os\nprint(len(os.environ['TOKEN']))\n")?;
    set(&here, &["TOKEN"], TOKEN)?.line()?;
    let listed = here.rgrid(&["secret", "list", "--json"])?.json()?;
    let one: &Value = &listed["secrets"][0];
    ensure!(
        one["name"] == "TOKEN" && one["set_by"].as_str().is_some_and(|by| by.contains('@')),
        "{listed}"
    );
    ensure!(
        one["set_at"].is_string() && one.as_object().is_some_and(|one| one.len() == 3),
        "{listed}"
    );
    // A namespace's secrets are its own.
    let other = here.rgrid(&["secret", "list", "--namespace", "other"])?.line()?;
    assert_eq!(other, "there are no secrets in namespace other");
    let came = here.rgrid(&["run", "--namespace", "other", "--secret", "TOKEN", "s.py"])?;
    ensure!(
        came.code == 2 && came.err().contains("secret `TOKEN` does not exist in namespace other; set it with"),
        "{}",
        came.err()
    );
    let came = here.rgrid(&["run", "--secret", "TOKEN=ABSENT", "s.py"])?;
    ensure!(
        came.code == 2 && came.err().contains("secret `ABSENT` does not exist in namespace default"),
        "{}",
        came.err()
    );
    // One that goes while its job waits.
    let job = here.rgrid(&["run", "-d", "--after", "3s", "--secret", "TOKEN", "s.py"])?.line()?;
    here.rgrid(&["secret", "rm", "TOKEN"])?.line()?;
    grid.eventually("the job has failed", async || {
        (grid.get(&format!("jobs/{job}")).await.ok()?["state"] == "failed").then_some(())
    })
    .await?;
    let view = grid.get(&format!("jobs/{job}")).await?;
    ensure!(
        view["message"]
            .as_str()
            .is_some_and(|message| message.contains("the secret `TOKEN` does not exist in namespace default any more")),
        "{view}"
    );
    for (arguments, value, words) in [
        (&["secret", "rm", "TOKEN"][..], "", "secret `TOKEN` does not exist"),
        (&["secret", "set", "a.b"], "", "1 to 64 letters"),
        (&["secret", "set", "SHORT"], "abc", "text of 4 to 65536 bytes"),
        (&["secret", "set", "NAME", "value"], "", "unexpected argument"),
    ] {
        let came = if value.is_empty() {
            here.rgrid(arguments)?
        } else {
            set(&here, &arguments[2..], value)?
        };
        ensure!(came.code != 0 && came.err().contains(words), "{arguments:?}: {}", came.err());
    }
    Ok(())
}
