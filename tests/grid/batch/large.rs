//! What is small on its way in and would be large inside: refused, or made a piece at a time.

use anyhow::{Result, ensure};
use bus::ids::BatchId;
use grid_tests::{
    grid::{Grid, Part},
    process::memory_of,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{ended, id, of, post};

/// By how much the API may grow for one request, in bytes: of a body of 64 MiB there may be a copy or two.
const GROWTH: u64 = 200 << 20;

/// A batch of members that share an environment of 100 kB.
fn shared(members: u32) -> Value {
    let members: Vec<Value> = (0..members).map(|_| json!({ "item": "" })).collect();
    json!({
        "id": BatchId::new(),
        "name": "large",
        "job": { "command": ["true"], "executor": "noop", "env": { "SHARED": "x".repeat(100_000) } },
        "members": members,
    })
}

/// Has the API do something, and checks what it takes for it.
async fn growing_little<T>(grid: &Grid, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let api = grid.pid(Part::Api)?;
    let (before, _) = memory_of(api)?;
    let came = work.await?;
    let (after, most) = memory_of(api)?;
    println!("{what}: {before} bytes before, {most} at most, {after} after");
    ensure!(most < before + GROWTH, "{what}: {before} bytes before, {most} at most");
    Ok(came)
}

#[tokio::test]
async fn a_small_request_for_gigabytes_of_jobs_is_refused_and_costs_nothing() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api, Part::Projector]).await?;
    for path in ["batches", "batches/earlier"] {
        let refused = growing_little(&grid, path, post(&grid, path, &shared(20_000), 413)).await?;
        ensure!(
            refused["detail"]
                .as_str()
                .is_some_and(|words| words.contains("submit several batches")),
            "{refused}"
        );
    }
    // What each has of its own adds up too: a tenth of a MB, sent once and meant for each of 10,000.
    let mut own = shared(10_000);
    own["job"]["env"] = json!({ "SHARED": "x".repeat(52_000) });
    for member in own["members"].as_array_mut().into_iter().flatten() {
        member["command"] = json!(["true", "x".repeat(2_000)]);
    }
    let refused = growing_little(&grid, "members of their own", post(&grid, "batches", &own, 413)).await?;
    ensure!(
        refused["detail"]
            .as_str()
            .is_some_and(|words| words.contains("submit several batches")),
        "{refused}"
    );
    Ok(())
}

#[tokio::test]
async fn millions_of_empty_members_are_counted_and_not_kept() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api]).await?;
    let head = format!(r#"{{"id":"{}","name":"","job":{{"command":["true"]}},"members":["#, BatchId::new());
    let one = r#"{"item":""},"#;
    let body = format!("{head}{}{}]}}", one.repeat(5_000_000), one.trim_end_matches(','));
    let send = async {
        let answer = grid.request(Method::POST, "batches").body(body).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    };
    let (status, words) = growing_little(&grid, "5,000,000 members", send).await?;
    ensure!(status == 413 && words.contains("100000 members"), "{status}: {words}");
    Ok(())
}

#[tokio::test]
async fn a_large_batch_and_its_retry_pass_through_the_api_in_pieces() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api, Part::Projector]).await?;
    let batch = shared(1_000);
    growing_little(&grid, "a batch", post(&grid, "batches", &batch, 201)).await?;
    grid.projected().await?;
    // Nobody runs them; ended, they can be tried again.
    growing_little(
        &grid,
        "its cancelling",
        post(&grid, &format!("batches/{}/cancel", id(&batch)?), &json!({}), 202),
    )
    .await?;
    ended(&grid, &batch, "cancelled").await?;
    let asked = json!({ "id": BatchId::new(), "failed_only": true });
    let path = format!("batches/{}/retry", id(&batch)?);
    let retried = growing_little(&grid, "its retry", post(&grid, &path, &asked, 201)).await?;
    ensure!(retried["total"] == 1_000, "{retried}");
    grid.projected().await?;
    let members = grid.get(&format!("batches/{}/jobs?limit=500&after=499", id(&asked)?)).await?;
    let members = members["members"].as_array().cloned().unwrap_or_default();
    ensure!(members.len() == 500, "{}", members.len());
    ensure!(
        members
            .iter()
            .zip(500..)
            .all(|(member, index)| member["index"] == index && !member["of"].is_null())
    );
    Ok(())
}

#[tokio::test]
async fn the_members_of_a_retry_keep_their_order_over_pages() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api, Part::Projector]).await?;
    let batch = of(&vec![String::from("true"); 2_500]);
    post(&grid, "batches", &batch, 201).await?;
    post(&grid, &format!("batches/{}/cancel", id(&batch)?), &json!({}), 202).await?;
    ended(&grid, &batch, "cancelled").await?;
    let asked = json!({ "id": BatchId::new() });
    let answer = post(&grid, &format!("batches/{}/retry", id(&batch)?), &asked, 201).await?;
    for after in [0, 1_000, 2_000] {
        let path = format!(
            "batches/{}/jobs?limit=400&after={after}&min_sequence={}",
            id(&asked)?,
            answer["sequence"]
        );
        let members = grid.get(&path).await?;
        let members = members["members"].as_array().cloned().unwrap_or_default();
        let in_order = members
            .iter()
            .zip(after + 1..)
            .all(|(member, index)| member["item"] == format!("item {index}"));
        ensure!(members.len() == 400 && in_order, "from {after}");
    }
    Ok(())
}
