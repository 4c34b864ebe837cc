//! A job is queued only after its inputs are stored, and what cannot be laid is refused.

use anyhow::{Result, ensure};
use bus::{
    ids::Digest,
    spec::{
        InputFile,
        tree::{Link, Tree},
    },
};
use grid_tests::grid::{Grid, Part};
use reqwest::Method;
use serde_json::{Value, json};

async fn put(grid: &Grid, content: &[u8]) -> Result<Digest> {
    let digest = Digest::of(content);
    let request = grid.request(Method::PUT, &format!("files/{digest}")).body(content.to_vec());
    let answer = request.send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    Ok(digest)
}

fn file(path: &str, sha256: Digest, size: u64) -> Result<InputFile> {
    Ok(InputFile {
        path: path.parse()?,
        sha256,
        size,
        executable: false,
        mode: None,
        modified_ms: None,
    })
}

async fn submit(grid: &Grid, tree: &Tree) -> Result<(u16, Value)> {
    let (json, reference) = tree.to_json();
    put(grid, &json).await?;
    let job = json!({"command": ["cat", "a"], "tree": reference});
    let answer = grid.request(Method::POST, "jobs").json(&job).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

#[tokio::test]
async fn a_list_of_inputs_is_looked_into_before_the_job_is_accepted() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api]).await?;
    let there = put(&grid, b"x").await?;
    let absent = Digest::of(b"never stored");
    let tree = Tree {
        files: vec![file("a", there, 1)?, file("b", absent, 12)?],
        ..Tree::default()
    };
    let (status, problem) = submit(&grid, &tree).await?;
    assert_eq!((status, &problem["missing"]), (422, &json!([absent])), "{problem}");
    let escaping = Tree {
        files: vec![file("a", there, 1)?],
        links: vec![Link {
            path: "etc".parse()?,
            target: "../../etc".to_owned(),
        }],
        ..Tree::default()
    };
    let (status, problem) = submit(&grid, &escaping).await?;
    assert_eq!(status, 422, "{problem}");
    ensure!(problem["detail"].to_string().contains("leads out"), "{problem}");
    let twice = Tree {
        files: vec![file("a", there, 1)?, file("a/b", there, 1)?],
        ..Tree::default()
    };
    let (status, problem) = submit(&grid, &twice).await?;
    assert_eq!(status, 422, "{problem}");
    let job = json!({"command": ["cat"], "stdin": {"sha256": absent, "size": 3}});
    let answer = grid.request(Method::POST, "jobs").json(&job).send().await?;
    assert_eq!(answer.status().as_u16(), 422);
    let lie = json!({"command": ["cat"], "tree": {"sha256": there, "size": 1, "files": 0, "bytes": 0}});
    let answer = grid.request(Method::POST, "jobs").json(&lie).send().await?;
    assert_eq!(answer.status().as_u16(), 422, "what is stored there is no list");
    let good = Tree {
        files: vec![file("a", there, 1)?],
        ..Tree::default()
    };
    assert_eq!(submit(&grid, &good).await?.0, 201);
    Ok(())
}
