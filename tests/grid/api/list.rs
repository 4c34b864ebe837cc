//! Lists, from the tables that a projector fills.

use anyhow::Result;
use bus::{
    ids::{Attempt, JobId},
    job::{Command, Outcome, Usage},
};
use grid_tests::writer::Worker;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::served::{Served, body, eventually, id, problem};

fn ids(list: &Value) -> Vec<JobId> {
    list["jobs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|job| id(job).expect("an id"))
        .collect()
}

async fn fail(api: &Served, worker: &Worker, job: JobId) -> Result<u64> {
    worker.claim(job).await?;
    let command = Command::Finish {
        attempt: Attempt::FIRST,
        session: worker.session,
        outcome: Outcome::Failed { exit_code: 4 },
        manifest: None,
        usage: Usage::default(),
    };
    api.writer.say(job, &worker.actor(), command).await
}

#[tokio::test]
async fn jobs_are_found_by_what_they_are_and_where_they_stand() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let plain = api.submit_any().await?;
    let night = api
        .submit(&json!({ "command": ["x"], "queue": "night", "labels": { "team": "a", "run": "7" } }))
        .await?;
    let named = api
        .submit(&json!({ "command": ["x"], "name": "it's; -- \"n", "labels": { "team": "b" } }))
        .await?;
    let failed = api.submit(&json!({ "command": ["false"], "labels": { "team": "a" } })).await?;
    let worker = api.worker("w").await?;
    let last = fail(&api, &worker, failed).await?;
    let found = async |query: &str| anyhow::Ok(ids(&api.read(&format!("/v1/jobs?min_sequence={last}{query}")).await?));
    assert_eq!(found("").await?, [failed, named, night, plain]);
    assert_eq!(found("&state=queued").await?, [named, night, plain]);
    assert_eq!(found("&state=failed").await?, [failed]);
    assert_eq!(found("&state=failed,queued,succeeded").await?, [failed, named, night, plain]);
    assert_eq!(found("&state=dead").await?, []);
    assert_eq!(found("&queue=night").await?, [night]);
    assert_eq!(found("&label=team=a").await?, [failed, night]);
    assert_eq!(found("&label=team=a&label=run=7").await?, [night]);
    assert_eq!(found("&label=team=a&state=queued").await?, [night]);
    assert_eq!(found("&name=it's;%20--%20%22n").await?, [named]);
    assert_eq!(
        found("&name=false").await?,
        [failed],
        "a job without a name is called by its command"
    );
    assert_eq!(found("&worker=w").await?, [failed]);
    assert_eq!(found("&namespace=other").await?, []);
    // A list tells of a job what the job itself does, but for its attempts.
    let list = api.read("/v1/jobs?state=failed").await?;
    let mut alone = api.read(&format!("/v1/jobs/{failed}")).await?;
    alone.as_object_mut().expect("an object").remove("attempts");
    assert_eq!(list["jobs"][0], alone);
    assert!(list["projected"].as_u64().is_some_and(|sequence| sequence >= last));
    let projection = api.read("/v1/projection").await?;
    assert_eq!(projection["last"], last);
    Ok(())
}

#[tokio::test]
async fn a_list_is_read_page_by_page_while_jobs_are_added() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let jobs = json!(vec![json!({ "command": ["true"] }); 25]);
    let answer = body(api.post("/v1/jobs", &jobs).await?, StatusCode::OK).await?;
    let mut submitted = ids(&answer);
    submitted.reverse();
    let (mut seen, mut next) = (Vec::new(), String::new());
    let mut pages = 0;
    loop {
        let page = api.read(&format!("/v1/jobs?min_sequence=25&limit=10{next}")).await?;
        seen.extend(ids(&page));
        pages += 1;
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("&before={cursor}");
        api.submit_any().await?;
    }
    assert_eq!((seen, pages), (submitted, 3));
    // A last page that is full says that nothing follows.
    let all = api.read("/v1/jobs?min_sequence=27&limit=27").await?;
    assert_eq!((ids(&all).len(), &all["next"]), (27, &Value::Null));
    Ok(())
}

#[tokio::test]
async fn who_lists_with_a_sequence_reads_their_own_write() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    for _ in 0..20 {
        let submitted = body(api.post("/v1/jobs", &json!({ "command": ["x"] })).await?, StatusCode::CREATED).await?;
        let list = api
            .read(&format!("/v1/jobs?limit=1&min_sequence={}", submitted["sequence"]))
            .await?;
        assert_eq!(list["jobs"][0]["id"], submitted["id"]);
    }
    Ok(())
}

#[tokio::test]
async fn workers_are_shown_with_their_last_beat() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let (job, worker) = (api.submit_any().await?, api.worker("w").await?);
    let claim = worker.claim(job).await?;
    let gone = api.worker("gone").await?;
    gone.leave().await?;
    let mut shown = Value::Null;
    eventually(async || {
        worker.beat(claim, &[(job, Attempt::FIRST)]).await?;
        shown = api.read("/v1/workers").await?["workers"].clone();
        Ok(shown[0]["state"] == "left" && shown[1]["last_beat"].is_string())
    })
    .await?;
    let live = &shown[1];
    assert_eq!(
        (&live["id"], &live["state"], &live["session"]),
        (&json!("w"), &json!("live"), &json!(worker.session))
    );
    assert_eq!(
        (&live["cpu_milli"], &live["memory_bytes"], &live["queues"]),
        (&json!(1000), &json!(1 << 30), &json!(["default"]))
    );
    assert_eq!((&live["cpu_milli_free"], &live["load"]), (&json!(1000), &json!(0.5)));
    assert_eq!(live["running"], json!([{ "job": job, "attempt": 1 }]));
    assert_eq!((&shown[0]["id"], &shown[0]["running"]), (&json!("gone"), &json!([])));
    Ok(())
}

#[tokio::test]
async fn a_job_that_nobody_can_run_is_accepted_with_a_warning() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let _worker = api.worker("w").await?;
    let warning = async |job: Value| {
        let answer = body(api.post("/v1/jobs", &job).await?, StatusCode::CREATED).await?;
        anyhow::Ok(answer["warning"].as_str().unwrap_or_default().to_owned())
    };
    let fits = json!({ "command": ["x"] });
    eventually(async || Ok(warning(fits.clone()).await?.is_empty())).await?;
    let unserved = json!({ "command": ["x"], "queue": "night" });
    eventually(async || Ok(warning(unserved.clone()).await?.contains("no worker serves queue night"))).await?;
    // The worker's row may be written later than the first look at the workers.
    let large = json!({ "command": ["x"], "resources": { "cpu_milli": 64000 } });
    eventually(async || Ok(warning(large.clone()).await?.contains("offers 64 CPUs; the job waits"))).await?;
    let image = warning(json!({ "command": ["x"], "image": "python:3" })).await?;
    assert!(image.contains("docker"), "{image}");
    let many = body(api.post("/v1/jobs", &json!([fits, unserved])).await?, StatusCode::OK).await?;
    assert_eq!(many["jobs"][0].get("warning"), None);
    assert!(many["jobs"][1]["warning"].is_string(), "{many}");
    Ok(())
}

#[tokio::test]
async fn without_postgres_only_lists_are_missing() -> Result<()> {
    let nats = grid_tests::nats::NatsServer::start().await?;
    // Nobody listens there.
    let away = |config: &mut api::Config| config.database_url = Some("postgres://nobody@127.0.0.1:1/none".to_owned());
    for api in [Served::start().await?, Served::start_on(nats, away).await?] {
        for path in ["/v1/jobs", "/v1/workers", "/v1/projection"] {
            let detail = problem(api.get(path).await?, StatusCode::SERVICE_UNAVAILABLE).await?;
            assert!(detail.contains("Postgres"), "{path}: {detail}");
        }
        let job = api.submit_any().await?;
        assert_eq!(api.read(&format!("/v1/jobs/{job}")).await?["state"], "queued");
        assert_eq!(
            api.read(&format!("/v1/jobs/{job}/history")).await?["events"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
        let health = api.read("/v1/health").await?;
        assert_eq!((&health["nats"], &health["postgres"]), (&json!(true), &json!(false)));
        body(api.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await?, StatusCode::ACCEPTED).await?;
    }
    Ok(())
}
