//! Runtimes of a deployment: one file for the whole grid, and what each worker has.

mod equipment;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::here::Here;

const FIRST: &str = "\
[runtimes.greet]
interpreter = \"sh -u\"
extensions = [\"greet\"]

[aliases]
snake = \"python\"
science = \"image:lab/science:2\"
";

/// A grid whose API reads this `runtimes.toml`, with a worker of plain processes.
async fn grid(text: &str) -> Result<(Grid, TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("runtimes.toml");
    fs::write(&file, text)?;
    let env = vec![("RGRID_RUNTIMES_FILE", file.display().to_string())];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    Ok((grid, dir, file))
}

/// Waits until the deployment's table is so.
async fn until(grid: &Grid, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
    grid.eventually(what, async || grid.get("runtimes").await.ok().filter(&so)).await
}

#[tokio::test]
async fn one_edit_serves_the_whole_grid_and_a_rerun_is_exact() -> Result<()> {
    let (grid, _dir, file) = grid(FIRST).await?;
    until(&grid, "the file is said", |table| table["aliases"]["snake"] == "python").await?;
    let here = Here::of(&grid)?;
    here.write("hello.greet", "echo hello $1\n")?
        .write("tell.py", "import helper\nprint(helper.WORD)\n")?
        .write("helper.py", "WORD = 'snake'\n")?;
    let came = here.rgrid(&["run", "hello.greet", "you"])?;
    assert_eq!((came.code, came.out()), (0, "hello you\n".to_owned()), "{}", came.err());
    // What the alias means is known here too: the module beside a Python script comes along.
    let came = here.rgrid(&["run", "--runtime", "snake", "--json", "tell.py"])?;
    assert_eq!(came.code, 0, "{}", came.err());
    let job = came.json()?;
    let id = job["id"].as_str().context("an id")?.to_owned();
    assert_eq!(job["runtime"], "python", "{job}");

    fs::write(&file, "[aliases]\nsnake = \"sh\"\n")?;
    until(&grid, "the edit is said", |table| table["aliases"] == json!({ "snake": "sh" })).await?;
    let came = here.rgrid(&["run", "hello.greet", "you"])?;
    assert!(
        came.code == 2 && came.err().contains("cannot determine the runtime of"),
        "{}",
        came.err()
    );
    let came = here.rgrid(&["rerun", &id])?;
    assert_eq!((came.code, came.out()), (0, "snake\n".to_owned()), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn every_way_in_stores_what_an_alias_means() -> Result<()> {
    let (grid, _dir, _file) = grid(FIRST).await?;
    until(&grid, "the file is said", |table| table["aliases"]["snake"] == "python").await?;
    let spec = async |answer: &Value| -> Result<(Value, Value)> {
        let id = answer["id"].as_str().with_context(|| answer.to_string())?;
        let job = grid.get(&format!("jobs/{id}")).await?;
        Ok((job["runtime"].clone(), job["image"].clone()))
    };
    let one = grid.submit(&json!({ "command": ["a.py"], "runtime": "snake" })).await?;
    assert_eq!(spec(&one).await?, (json!("python"), Value::Null));
    let many = grid
        .submit(&json!([{ "command": ["a.greet"], "runtime": "science" }, { "command": ["a"], "runtime": "snake:3" }]))
        .await?;
    assert_eq!(spec(&many["jobs"][0]).await?, (json!("greet"), json!("lab/science:2")));
    assert!(many["jobs"][1].to_string().contains("takes no version"), "{many}");

    let batch = json!({
        "id": uuid::Uuid::now_v7(), "name": "b", "job": { "command": [], "runtime": "snake" },
        "members": [{ "item": "one", "command": ["a.py"] }],
    });
    let answer = grid.request(reqwest::Method::POST, "batches").json(&batch).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    let members = grid.eventually("the member is listed", async || {
        let members = grid.get(&format!("batches/{}/jobs", batch["id"].as_str()?)).await.ok()?;
        members["members"][0]["job"]["id"].as_str().map(ToOwned::to_owned)
    });
    assert_eq!(spec(&json!({ "id": members.await? })).await?.0, "python");

    let js = async_nats::jetstream::new(async_nats::connect(grid.nats.url()).await?);
    let body = json!({ "command": ["a.py"], "runtime": "snake", "key": "by-nats" }).to_string();
    js.publish("rgrid.submit.default.default", body.into()).await?.await?;
    let id = bus::ids::JobId::of_key(&bus::ids::default_token(), "by-nats").to_string();
    grid.eventually("the inbox is taken", async || grid.get(&format!("jobs/{id}")).await.ok())
        .await?;
    assert_eq!(spec(&json!({ "id": id })).await?.0, "python");
    Ok(())
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_is_told_with_its_line() -> Result<()> {
    let (mut grid, _dir, file) = grid(FIRST).await?;
    until(&grid, "the file is said", |table| table["aliases"]["snake"] == "python").await?;
    fs::write(&file, "[aliases]\n\nsnake = \"cobol\"\n")?;
    let told = "line 3: `snake` stands for `cobol`, but the runtime `cobol` does not exist";
    grid.eventually("the mistake is told", async || grid.log(Part::Api).contains(told).then_some(()))
        .await?;
    assert_eq!(grid.get("runtimes").await?["aliases"]["snake"], "python");
    let here = Here::of(&grid)?;
    let path = file.display().to_string();
    let came = here.rgrid(&["runtimes", "--check", &path])?;
    assert!(came.code == 2 && came.err().contains(told), "{}", came.err());

    // Who starts an API with it is told at once, and what was said last goes on when that is not to be read.
    grid.kill(Part::Api)?;
    let mut command = here.command(&["api", "--runtimes", &path, "--key", "k", "--listen", "127.0.0.1:0"]);
    let came = command.env("RGRID_NATS", grid.nats.url()).output()?;
    let err = String::from_utf8_lossy(&came.stderr).into_owned();
    assert!(!came.status.success() && err.contains(told), "{err}");
    fs::write(&file, FIRST)?;
    let came = here.rgrid(&["runtimes", "--check", &path])?;
    assert_eq!(came.out(), format!("{path} is valid: 1 runtime, 2 aliases\n"), "{}", came.err());
    grid.run(Part::Api)?;
    until(&grid, "the API is back", |table| table["aliases"]["snake"] == "python").await?;
    Ok(())
}

#[tokio::test]
async fn a_workers_own_word_counts_there() -> Result<()> {
    let (mut grid, _dir, _file) = grid(FIRST).await?;
    until(&grid, "the file is said", |table| table["aliases"]["snake"] == "python").await?;
    grid.kill(Part::Runner(1))?;
    grid.run_with(Part::Runner(2), &["--runtime", "greet=echo own"])?;
    grid.worker_is("worker-2", "live").await?;
    let here = Here::of(&grid)?;
    here.write("hello.greet", "echo hello\n")?;
    let came = here.rgrid(&["run", "hello.greet", "you"])?;
    assert_eq!((came.code, came.out()), (0, "own hello.greet you\n".to_owned()), "{}", came.err());
    Ok(())
}

/// What `python3` says of itself.
fn python() -> Result<String> {
    let says = Command::new("python3").arg("--version").output()?;
    let says = String::from_utf8_lossy(&says.stdout).into_owned();
    Ok(says.trim().trim_start_matches("Python ").to_owned())
}

#[tokio::test]
async fn each_worker_says_which_runtimes_it_has() -> Result<()> {
    let (grid, _dir, file) = grid(FIRST).await?;
    let here = Here::of(&grid)?;
    let worker = async |so: &(dyn Fn(&Value) -> bool + Sync)| {
        grid.eventually("the worker says so", async || {
            let all = here.rgrid(&["runtimes", "--json"]).ok()?.json().ok()?;
            all["workers"][0]["runtimes"].is_object().then_some(all).filter(so)
        })
        .await
    };
    let all = worker(&|all| !all["workers"][0]["runtimes"]["greet"]["versions"].is_null()).await?;
    let one = &all["workers"][0];
    assert_eq!(
        (one["worker"].as_str(), one["process"].as_bool()),
        (Some("worker-1"), Some(true)),
        "{all}"
    );
    assert_eq!(one["runtimes"]["python"]["versions"][0], python()?, "{all}");
    assert!(one["platform"].is_null() && all["aliases"]["snake"] == "python", "{all}");

    let came = here.rgrid(&["runtimes"])?;
    let line = |name: &str| came.out().lines().find(|line| line.starts_with(name)).map(ToOwned::to_owned);
    let shown = line("python").with_context(|| came.out())?;
    assert!(shown.contains("worker-1") && shown.contains(&python()?), "{shown}");
    assert!(
        line("science").is_some_and(|line| line.ends_with("image:lab/science:2")),
        "{}",
        came.out()
    );

    // What is taken out of the file is taken out there.
    fs::write(&file, "")?;
    worker(&|all| all["workers"][0]["runtimes"]["greet"].is_null() && all["aliases"] == json!({})).await?;
    Ok(())
}
