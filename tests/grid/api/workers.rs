//! An operator's word on workers.

use anyhow::Result;
use bus::{
    log::{EVENTS, follow::Follower},
    subjects,
};
use grid_tests::writer::Worker;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::served::{Served, body, eventually, problem};

async fn say(api: &Served, worker: &str, verb: &str, asked: Value) -> Result<Value> {
    body(api.post(&format!("/v1/workers/{worker}/{verb}"), &asked).await?, StatusCode::OK).await
}

/// The types of a worker's events.
async fn types(api: &Served, worker: &Worker, wanted: usize) -> Result<Vec<String>> {
    let mut follower = Follower::new(&api.writer.bus.js, EVENTS, vec![subjects::worker(&worker.id)], 0);
    let mut types = Vec::new();
    while types.len() < wanted {
        let message = follower.next().await;
        let event: Value = serde_json::from_slice(&message.payload)?;
        types.push(event["type"].as_str().unwrap_or_default().to_owned());
        assert!(message.pending > 0 || types.len() == wanted, "{types:?}");
    }
    Ok(types)
}

#[tokio::test]
async fn a_worker_is_cordoned_drained_and_free_again_and_each_word_counts_once() -> Result<()> {
    let api = Served::start().await?;
    let worker = api.worker("w-1").await?;
    let first = say(&api, "w-1", "cordon", json!({ "reason": "a slow disk" })).await?;
    assert_eq!(
        (&first["cordoned"], &first["drain"], &first["changed"], &first["reason"]),
        (&json!(true), &json!(false), &json!(true), &json!("a slow disk"))
    );
    let again = say(&api, "w-1", "cordon", json!({})).await?;
    assert_eq!(
        (&again["changed"], &again["sequence"], &again["reason"]),
        (&json!(false), &first["sequence"], &first["reason"])
    );
    let drained = say(&api, "w-1", "drain", json!({ "deadline_ms": 60_000 })).await?;
    assert_eq!(
        (&drained["drain"], &drained["changed"], &drained["reason"]),
        (&json!(true), &json!(true), &first["reason"])
    );
    assert!(drained["deadline"].is_string());
    // A drain that is said again keeps its deadline, and a cordon does not end it.
    for verb in ["drain", "cordon"] {
        let again = say(&api, "w-1", verb, json!({})).await?;
        assert_eq!(
            (&again["changed"], &again["drain"], &again["deadline"]),
            (&json!(false), &json!(true), &drained["deadline"]),
            "{verb}"
        );
    }
    assert!(say(&api, "w-1", "uncordon", Value::Null).await.is_err());
    let freed = body(
        api.request(reqwest::Method::POST, "/v1/workers/w-1/uncordon").send().await?,
        StatusCode::OK,
    )
    .await?;
    assert_eq!((&freed["cordoned"], &freed["changed"]), (&json!(false), &json!(true)));
    assert_eq!(say(&api, "w-1", "uncordon", json!({})).await?["changed"], false);
    let expected = [
        "worker.registered.v1",
        "worker.cordoned.v1",
        "worker.cordoned.v1",
        "worker.uncordoned.v1",
    ];
    assert_eq!(types(&api, &worker, 4).await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_word_on_nobody_is_refused_and_words_at_once_come_one_behind_the_other() -> Result<()> {
    let api = Served::start().await?;
    for verb in ["cordon", "drain", "uncordon"] {
        let detail = problem(
            api.post(&format!("/v1/workers/nobody/{verb}"), &json!({})).await?,
            StatusCode::NOT_FOUND,
        )
        .await?;
        assert!(
            detail.contains("worker nobody does not exist") && detail.contains("rgrid workers"),
            "{detail}"
        );
        let detail = problem(
            api.post(&format!("/v1/workers/no%20body/{verb}"), &json!({})).await?,
            StatusCode::BAD_REQUEST,
        )
        .await?;
        assert!(detail.contains("letters, digits"), "{detail}");
    }
    let worker = api.worker("w").await?;
    let unfit = api.post("/v1/workers/w/drain", &json!({ "deadline": "soon" })).await?;
    assert!(problem(unfit, StatusCode::BAD_REQUEST).await?.contains("deadline"));
    // Twenty operators, while its runner begins session after session.
    let operators = futures::future::try_join_all((0..20).map(|_| say(&api, "w", "cordon", json!({}))));
    let sessions = async {
        for _ in 0..5 {
            Worker::register(&api.writer, "w").await?;
        }
        anyhow::Ok(())
    };
    let (came, ()) = tokio::try_join!(operators, sessions)?;
    assert_eq!(came.iter().filter(|cordon| cordon["changed"] == true).count(), 1, "{came:?}");
    let types = types(&api, &worker, 7).await?;
    assert_eq!(types.iter().filter(|kind| *kind == "worker.cordoned.v1").count(), 1, "{types:?}");
    Ok(())
}

#[tokio::test]
async fn the_tables_show_how_a_worker_stands_and_advice_leaves_out_who_takes_nothing() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let worker = api.worker("w").await?;
    let view = async || Ok::<_, anyhow::Error>(api.read("/v1/workers").await?["workers"][0].clone());
    // A beat that comes before its worker has a row is not kept.
    eventually(async || {
        worker.beat(0, &[]).await?;
        Ok(view().await?["last_beat"].is_string())
    })
    .await?;
    assert_eq!(view().await?.get("cordoned_at"), None);
    say(&api, "w", "drain", json!({ "reason": "a new disk", "deadline_ms": 60_000 })).await?;
    eventually(async || Ok(view().await?["cordoned_at"].is_string())).await?;
    let shown = view().await?;
    assert_eq!(
        (&shown["drain"], &shown["cordon_reason"], &shown["state"]),
        (&json!(true), &json!("a new disk"), &json!("live"))
    );
    assert!(shown["drain_deadline"].is_string());
    // Who submits is told that nobody takes it.
    let warned = async || {
        let submitted = body(api.post("/v1/jobs", &json!({ "command": ["x"] })).await?, StatusCode::CREATED).await?;
        Ok(submitted["warning"]
            .as_str()
            .is_some_and(|warning| warning.contains("no worker serves queue default")))
    };
    eventually(warned).await?;
    say(&api, "w", "uncordon", json!({})).await?;
    eventually(async || Ok(!warned().await?)).await?;
    assert_eq!(view().await?.get("cordoned_at"), None);
    Ok(())
}
