//! What an intake had in hand when it died, and what is submitted while NATS hangs.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use bus::{
    ids::{JobId, default_token},
    log::{EVENTS, INBOX, setup::INTAKE},
};
use futures::future::join_all;
use grid_tests::{
    grid::{Grid, Part},
    process::signal_to,
};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use super::SUBJECT;
use crate::{
    api::served::{LONG, Served},
    log::eventually,
};

/// Messages that were handed to an intake and not acknowledged.
async fn in_hand(grid: &Grid) -> Result<usize> {
    let js = grid.nats.context().await?;
    let inbox = js.get_stream(INBOX).await?;
    let mut intake = inbox
        .get_consumer::<async_nats::jetstream::consumer::pull::Config>(INTAKE)
        .await
        .map_err(|error| anyhow::anyhow!(error))?;
    Ok(intake.info().await?.num_ack_pending)
}

#[tokio::test]
async fn what_an_intake_had_in_hand_when_it_was_killed_comes_back_within_seconds() -> Result<()> {
    let mut grid = Grid::start_only(&[Part::Api]).await?;
    let js = grid.nats.context().await?;
    // It has asked for messages, and is stopped before it can take any.
    grid.eventually("the intake asks", async || (in_hand(&grid).await.ok()? == 0).then_some(()))
        .await?;
    signal_to(grid.pid(Part::Api)?, Signal::STOP)?;
    for number in 0..20 {
        let body = json!({ "command": ["x"], "key": format!("k{number}") }).to_string();
        js.publish(SUBJECT, body.into()).await?.await?;
    }
    grid.eventually("the frozen intake has some in hand", async || {
        (in_hand(&grid).await.ok()? > 0).then_some(())
    })
    .await?;
    grid.kill(Part::Api)?;
    grid.run(Part::Api)?;
    let began = Instant::now();
    for number in 0..20 {
        let id = JobId::of_key(&default_token(), &format!("k{number}"));
        grid.eventually("it is taken", async || grid.get(&format!("jobs/{id}")).await.ok().map(drop))
            .await?;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "the ack wait is 5 s, and it took {took:?}");
    Ok(())
}

/// One frozen broker at a time: what comes after its thaw is a burst, and two of them at once wait for each other.
static FROZEN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn submissions_while_nats_hangs_wait_and_each_that_is_acknowledged_is_there_once() -> Result<()> {
    let _alone = FROZEN.lock().await;
    let api = Served::start().await?;
    api.submit_any().await?;
    let submit = |number: usize| {
        let job = json!({ "command": ["x", number.to_string()] });
        let request = api.request(Method::POST, "/v1/jobs").json(&job);
        async move {
            let response = request.send().await?;
            let status = response.status();
            anyhow::Ok((status, response.json::<serde_json::Value>().await?))
        }
    };
    let frozen = Notify::new();
    let hang = async {
        // Some of the early ones are stored, in addition to the first job.
        eventually("some are stored", LONG, async || {
            let stored = api.writer.bus.js.get_stream(EVENTS).await?.cached_info().state.messages;
            Ok((stored > 1).then_some(()))
        })
        .await?;
        api.nats.freeze()?;
        frozen.notify_one();
        tokio::time::sleep(Duration::from_secs(6)).await;
        api.nats.thaw()
    };
    let later = async {
        frozen.notified().await;
        join_all((100..200).map(submit)).await
    };
    let (early, late, hung) = tokio::join!(join_all((0..100).map(submit)), later, hang);
    hung?;
    let mut acknowledged = BTreeSet::new();
    let (mut unsure, mut why) = (0, String::new());
    for answer in early.into_iter().chain(late) {
        let (status, document) = answer?;
        if status == StatusCode::CREATED {
            acknowledged.insert(document["id"].as_str().context("no id")?.parse::<JobId>()?);
        } else {
            // On a busy machine, ten seconds were not enough for it; it is told so, and may be there or not.
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{document}");
            unsure += 1;
            why = document["detail"].to_string();
        }
    }
    assert!(
        acknowledged.len() + unsure == 200 && acknowledged.len() >= 100,
        "{unsure} of 200: {why}"
    );
    for job in &acknowledged {
        assert_eq!(api.writer.types(*job).await?, ["job.submitted.v1"]);
    }
    let stored = api.writer.bus.js.get_stream(EVENTS).await?.cached_info().state.messages;
    let most = u64::try_from(1 + acknowledged.len() + unsure)?;
    assert!(
        (most - u64::try_from(unsure)?..=most).contains(&stored),
        "{stored} events, at most {most}"
    );
    Ok(())
}

#[tokio::test]
async fn a_nats_that_stays_away_is_not_waited_for_without_bound() -> Result<()> {
    let _alone = FROZEN.lock().await;
    let api = Served::start().await?;
    api.submit_any().await?;
    api.nats.freeze()?;
    let began = Instant::now();
    let response = api.post("/v1/jobs", &json!({ "command": ["x"], "key": "k" })).await?;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    let document: serde_json::Value = response.json().await?;
    let detail = document["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("NATS did not acknowledge") && detail.contains("try again"),
        "{detail}"
    );
    api.nats.thaw()?;
    // Whether it was stored or not: submitted again under its key, it is there once.
    let again = async {
        loop {
            let response = api.post("/v1/jobs", &json!({ "command": ["x"], "key": "k" })).await?;
            if response.status().is_success() {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(LONG, again).await??;
    assert_eq!(api.writer.bus.js.get_stream(EVENTS).await?.cached_info().state.messages, 2);
    Ok(())
}
