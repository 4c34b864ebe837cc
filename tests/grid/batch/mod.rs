//! Batches, against real servers.

mod large;
mod story;
mod submit;
mod window;

use anyhow::{Context as _, Result, ensure};
use bus::ids::BatchId;
use grid_tests::grid::Grid;
use reqwest::Method;
use serde_json::{Value, json};

/// A batch of shell scripts, one a member.
fn of(scripts: &[String]) -> Value {
    let members: Vec<Value> = scripts
        .iter()
        .enumerate()
        .map(|(index, script)| json!({ "item": format!("item {index}"), "command": ["/bin/sh", "-c", script] }))
        .collect();
    json!({
        "id": BatchId::new(),
        "name": "a test",
        "job": { "command": [], "executor": "process", "resources": { "cpu_milli": 100 } },
        "members": members,
    })
}

/// Hands something in, and reads the answer, which must have this status.
async fn post(grid: &Grid, path: &str, body: &Value, status: u16) -> Result<Value> {
    let answer = grid.request(Method::POST, path).json(body).send().await?;
    let (came, text) = (answer.status().as_u16(), answer.text().await?);
    ensure!(came == status, "POST {path}: {came} and not {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

fn id(batch: &Value) -> Result<&str> {
    batch["id"].as_str().context("a batch has an id")
}

/// Waits until a batch has ended as this.
async fn ended(grid: &Grid, batch: &Value, state: &str) -> Result<Value> {
    let path = format!("batches/{}", id(batch)?);
    let ends = ["succeeded", "failed", "cancelled"];
    let view = grid
        .eventually(&format!("the batch is {state}"), async || {
            let view = grid.get(&path).await.ok()?;
            ends.contains(&view["state"].as_str()?).then_some(view)
        })
        .await?;
    ensure!(view["state"] == state, "{view}");
    Ok(view)
}
