//! Submissions that cannot be: kept with the reason, answered, and never in the way of the next one.

use anyhow::{Context as _, Result};
use async_nats::HeaderMap;
use bus::{
    ids::{Digest, JobId, default_token},
    log::{REFUSED, follow::Follower},
};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{SUBJECT, inbox_empty, taken};
use crate::api::served::{LONG, Served};

/// The next refusal: where it is kept, and what it says.
async fn refusal(refusals: &mut Follower) -> Result<(String, Value)> {
    let message = tokio::time::timeout(LONG, refusals.next()).await.context("nothing was refused")?;
    Ok((message.subject, serde_json::from_slice(&message.payload)?))
}

#[tokio::test]
async fn garbage_is_kept_with_its_reason_and_stops_nobody() -> Result<()> {
    let api = Served::start().await?;
    let mut refusals = Follower::new(&api.writer.bus.js, REFUSED, Vec::new(), 0);
    let absent = Digest::of(b"nobody stored this");
    let input = json!({ "command": ["x"], "inputs": [{ "path": "a", "sha256": absent.to_string(), "size": 1 }] }).to_string();
    let cases: [(&str, Vec<u8>, &str, &str); 11] = [
        (SUBJECT, b"".to_vec(), "default", "EOF"),
        (SUBJECT, b"{\"command\": [".to_vec(), "default", "EOF"),
        (SUBJECT, b"\xff\xfe\x00\x01 not text".to_vec(), "default", "line 1"),
        (SUBJECT, br#"{"command": "ls"}"#.to_vec(), "default", "sequence"),
        (
            SUBJECT,
            br#"{"command": ["x"], "resources": {"memory_bytes": "12XB"}}"#.to_vec(),
            "default",
            "12XB",
        ),
        (SUBJECT, br#"{"command": []}"#.to_vec(), "default", "`command` is empty"),
        (
            SUBJECT,
            br#"{"command": ["x"], "queue": "other"}"#.to_vec(),
            "default",
            "leave `queue` out of the body",
        ),
        (SUBJECT, vec![b'x'; 1_000_000], "default", "line 1"),
        ("rgrid.submit.team.q", input.into_bytes(), "team", "not in the store"),
        (
            "rgrid.submit.te%am.qu$eue",
            br#"{"command": ["x"]}"#.to_vec(),
            "sys",
            "letters, digits",
        ),
        (
            "rgrid.submit.sys.default",
            br#"{"command": ["x"]}"#.to_vec(),
            "sys",
            "reserved for the grid",
        ),
    ];
    for (number, (subject, body, namespace, words)) in cases.into_iter().enumerate() {
        api.writer.bus.js.publish(subject.to_owned(), body.clone().into()).await?.await?;
        let (kept_on, kept) = refusal(&mut refusals).await?;
        assert_eq!(kept_on, format!("rgrid.refused.{namespace}"), "{kept}");
        assert!(
            kept["reason"].as_str().is_some_and(|reason| reason.contains(words)),
            "{words}: {kept}"
        );
        assert_eq!((&kept["subject"], &kept["sequence"]), (&json!(subject), &json!(number + 1)));
        assert_eq!(kept["body_bytes"], body.len());
        let start = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        assert!(
            kept["body"]
                .as_str()
                .is_some_and(|kept| kept.starts_with(&start) && kept.len() <= 20_000)
        );
        assert!(kept["time"].is_string());
    }
    let key = json!({ "command": ["x"], "key": "after all that" });
    api.writer.bus.js.publish(SUBJECT, key.to_string().into()).await?.await?;
    taken(&api, JobId::of_key(&default_token(), "after all that")).await?;
    inbox_empty(&api).await
}

#[tokio::test]
async fn a_refusal_is_answered_with_a_problem_document() -> Result<()> {
    let api = Served::start().await?;
    let client = &api.writer.bus.client;
    let mut answers = client.subscribe("answers.here").await?;
    let mut headers = HeaderMap::new();
    headers.insert("Rgrid-Reply-To", "answers.here");
    api.writer.bus.js.publish_with_headers(SUBJECT, headers, "{}".into()).await?.await?;
    let answer = tokio::time::timeout(LONG, answers.next()).await?.context("no answer")?;
    let document: Value = serde_json::from_slice(&answer.payload)?;
    assert_eq!(
        (&document["status"], &document["type"]),
        (&json!(422), &json!("urn:rgrid:problem:refused"))
    );
    assert!(
        document["detail"].as_str().is_some_and(|detail| detail.contains("command")),
        "{document}"
    );
    Ok(())
}

#[tokio::test]
async fn an_answer_is_never_sent_where_the_sender_may_not_speak() -> Result<()> {
    let api = Served::start().await?;
    let job = JobId::of_key(&default_token(), "k");
    let victim = api.submit_any().await?;
    let before = api.read(&format!("/v1/jobs/{victim}/history")).await?;
    let mut headers = HeaderMap::new();
    // The API may write here, and whoever submits may not.
    headers.insert("Rgrid-Reply-To", format!("rgrid.evt.default.job.{victim}.by.api").as_str());
    let body = json!({ "command": ["x"], "key": "k" }).to_string();
    api.writer.bus.js.publish_with_headers(SUBJECT, headers, body.into()).await?.await?;
    taken(&api, job).await?;
    inbox_empty(&api).await?;
    assert_eq!(api.read(&format!("/v1/jobs/{victim}/history")).await?, before);
    Ok(())
}
