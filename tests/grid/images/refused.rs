//! What is not as it was pushed, or not for this machine, is refused with what to do.

use std::fs;

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Shell, docker, grid, id_of};
use crate::cli::here::Here;

/// The sentence that a job ended with.
async fn told(grid: &grid_tests::grid::Grid, job: &Value) -> Result<String> {
    let ended = grid.ended(&id_of(grid, job).await?).await?;
    assert_eq!(ended["state"], "failed", "{ended}");
    Ok(ended["message"].as_str().with_context(|| ended.to_string())?.to_owned())
}

#[tokio::test]
async fn a_damaged_archive_is_refused_before_docker_sees_it() -> Result<()> {
    let (grid, store) = grid().await?;
    let here = Here::of(&grid)?;
    let shell = Shell::new(grid.dir(), 1)?;
    let pushed = here.rgrid(&["image", "push", "--json", &shell.name])?.json()?;
    let digest = pushed["image"]["archive"].as_str().context("a digest")?;
    shell.remove()?;
    let file = store.path().join(store::Files::key(&digest.parse()?).as_ref());
    let mut bytes = fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes)?;
    let message = told(&grid, &shell.job()).await?;
    assert!(
        message.contains("not as it was pushed") && message.contains("rgrid image push"),
        "{message}"
    );
    let came = here.rgrid(&["image", "load", &shell.name])?;
    assert!(
        came.code == 1 && came.err().contains(&format!("cannot fetch image {}", shell.name)),
        "{}",
        came.err()
    );

    fs::remove_file(&file)?;
    let message = told(&grid, &shell.job()).await?;
    assert!(message.contains("is not in the store"), "{message}");
    assert!(!shell.is_here());
    Ok(())
}

#[tokio::test]
async fn an_archive_of_something_else_is_refused() -> Result<()> {
    let (grid, _store) = grid().await?;
    let here = Here::of(&grid)?;
    let (shell, other) = (Shell::new(grid.dir(), 1)?, Shell::new(grid.dir(), 1)?);
    let mut pushed = here.rgrid(&["image", "push", "--json", &shell.name])?.json()?["image"].take();
    let body = pushed.as_object_mut().context("an object")?;
    body.retain(|key, _| key != "name" && key != "at");
    shell.remove()?;
    other.remove()?;
    // By an id that it does not have.
    let put = |name: &str, body: &Value| grid.request(Method::PUT, &format!("images/{name}")).json(body).send();
    let id = pushed["id"].take();
    pushed["id"] = json!(format!("sha256:{}", "0".repeat(64)));
    assert_eq!(put(&other.name, &pushed).await?.status(), 201);
    let message = told(&grid, &other.job()).await?;
    assert!(message.contains("it does not hold that image"), "{message}");
    assert!(!shell.is_here() && !other.is_here(), "Docker saw it");

    // And for another kind of machine.
    pushed["platform"] = json!("plan9/mips");
    assert_eq!(put(&other.name, &pushed).await?.status(), 201);
    let message = told(&grid, &other.job()).await?;
    let ours = docker(&["version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"])?;
    assert!(
        message.contains("is for plan9/mips") && message.contains(&format!("this worker runs {ours}")),
        "{message}"
    );

    // Under another name, it is what that name stands for, and what it calls itself counts for nothing.
    (pushed["platform"], pushed["id"]) = (json!(ours), id);
    assert_eq!(put(&other.name, &pushed).await?.status(), 201);
    let ended = grid.ended(&id_of(&grid, &other.job()).await?).await?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(other.is_here() && !shell.is_here());
    Ok(())
}

#[tokio::test]
async fn what_nobody_has_is_refused_with_what_to_do() -> Result<()> {
    let (grid, _store) = grid().await?;
    let here = Here::of(&grid)?;
    let message = told(
        &grid,
        &json!({ "command": ["-c", ":"], "runtime": "sh:none.such", "executor": "docker" }),
    )
    .await?;
    assert!(
        message.contains("neither this worker nor the grid has image `rgrid/sh:none.such`")
            && message.contains("rgrid image build sh:none.such"),
        "{message}"
    );
    for (arguments, code, words) in [
        (
            vec!["push", "rgrid/none:such"],
            1,
            "this machine's Docker has no image rgrid/none:such",
        ),
        (vec!["push", "a b"], 2, "is not the name of an image"),
        (vec!["load", "rgrid/none:such"], 1, "the grid does not store image rgrid/none:such"),
    ] {
        let came = here.rgrid(&[vec!["image"], arguments].concat())?;
        assert!(came.code == code && came.err().contains(words), "{}", came.err());
    }
    let mut without = here.command(&["image", "push", "rgrid/none:such"]);
    let output = without.env("DOCKER_HOST", "unix:///no/such.sock").output()?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("cannot reach Docker on this machine; start Docker"), "{err}");

    let body = json!({ "archive": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "archive_bytes": 1, "id": "sha256:0", "size": 1, "platform": "linux/amd64" });
    let answer = grid.request(Method::PUT, "images/x:1").json(&body).send().await?;
    assert_eq!(answer.status(), 422);
    assert!(answer.text().await?.contains("is not in the store; upload it to /v1/files first"));
    let answer = grid.request(Method::PUT, "images/x@y").json(&body).send().await?;
    assert_eq!(answer.status(), 400);
    Ok(())
}
