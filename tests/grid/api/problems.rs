//! Bad input: each ends in a problem document that says what to change.

use anyhow::{Context as _, Result};
use bus::ids::JobId;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::served::{Served, body, problem};

#[tokio::test]
async fn every_bad_request_is_a_problem_that_says_what_to_change() -> Result<()> {
    let api = Served::start().await?;
    let absent = JobId::new();
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let job = |path: &str| path.replace("{}", &absent.to_string());
    let cases = [
        (&post, "/v1/jobs".to_owned(), r#"{"command": ["#, 400, "line 1 column"),
        (&post, "/v1/jobs".to_owned(), r#"{"command": "ls"}"#, 400, "`command`"),
        (
            &post,
            "/v1/jobs".to_owned(),
            "{\n\"command\": [\"x\"],\n\"resources\": {\"cpu_milli\": \"two\"}}",
            400,
            "`resources.cpu_milli`",
        ),
        (
            &post,
            "/v1/jobs".to_owned(),
            "{\n\"command\": [\"x\"],\n\"resources\": {\"cpu_milli\": \"two\"}}",
            400,
            "line 3",
        ),
        (
            &post,
            "/v1/jobs".to_owned(),
            r#"{"command": ["x"], "resources": {"memory_bytes": -1}}"#,
            400,
            "-1",
        ),
        (&post, "/v1/jobs".to_owned(), r#"{"command": ["x"], "comand": 1}"#, 400, "comand"),
        (
            &post,
            "/v1/jobs".to_owned(),
            r#"{"command": ["x"], "inputs": [{"path": "../x", "sha256": "00", "size": 1}]}"#,
            400,
            "relative path",
        ),
        (
            &post,
            "/v1/jobs".to_owned(),
            r#"{"command": ["x"], "files": [{"path": "/etc/x", "content": ""}]}"#,
            400,
            "relative path",
        ),
        (&post, "/v1/jobs".to_owned(), "", 400, "EOF"),
        (&post, "/v1/jobs".to_owned(), "\u{0}\u{1}", 400, "line 1"),
        (&post, "/v1/jobs".to_owned(), "[]", 400, "1 to 10000"),
        (&post, "/v1/jobs".to_owned(), r#"[{"command": ["x"]},"#, 400, "line 1"),
        (&post, "/v1/jobs".to_owned(), r#"{"command": []}"#, 422, "`command` is empty"),
        (
            &post,
            "/v1/jobs".to_owned(),
            r#"{"command": ["x"], "queue": "a.b"}"#,
            422,
            "letters, digits",
        ),
        (
            &post,
            "/v1/jobs".to_owned(),
            r#"{"command": ["x"], "timeout_ms": 0}"#,
            422,
            "timeout_ms",
        ),
        (
            &post,
            "/v1/jobs?namespace=a.b".to_owned(),
            r#"{"command": ["x"]}"#,
            400,
            "`namespace`",
        ),
        (
            &post,
            "/v1/jobs?namespace=sys".to_owned(),
            r#"{"command": ["x"]}"#,
            400,
            "reserved for the grid",
        ),
        (
            &post,
            "/v1/jobs?nmspace=x".to_owned(),
            r#"{"command": ["x"]}"#,
            400,
            "unknown parameter `nmspace`",
        ),
        (&get, "/v1/jobs/17".to_owned(), "", 400, "not a job id"),
        (&get, "/v1/jobs/%FF".to_owned(), "", 400, "path"),
        (&get, job("/v1/jobs/{}"), "", 404, "does not exist"),
        (&get, job("/v1/jobs/{}?wait=soon"), "", 400, "30s"),
        (&get, job("/v1/jobs/{}?until=tomorrow"), "", 400, "`end` or `started`"),
        (&get, job("/v1/jobs/{}/history"), "", 404, "does not exist"),
        (&get, job("/v1/jobs/{}/logs"), "", 404, "does not exist"),
        (&get, job("/v1/jobs/{}/logs?attempt=0"), "", 400, "from 1"),
        (&get, job("/v1/jobs/{}/logs?stream=stdin"), "", 400, "`stdout` or `stderr`"),
        (&get, job("/v1/jobs/{}/artifacts"), "", 404, "does not exist"),
        (&post, job("/v1/jobs/{}/cancel"), r#"{"because": 1}"#, 400, "because"),
        (&get, "/v1/files/xyz".to_owned(), "", 400, "64 hexadecimal"),
        (&get, format!("/v1/files/{}", "0".repeat(64)), "", 404, "is not in the store"),
        (&put, format!("/v1/files/{}", "0".repeat(64)), "not it", 422, "nothing was stored"),
        (&post, "/v1/files/missing".to_owned(), r#"{"sha256": ["zz"]}"#, 400, "`sha256[0]`"),
        (&get, "/v1/facts?after=x".to_owned(), "", 400, "`after`"),
        (&get, "/v1/jobs?limit=0".to_owned(), "", 400, "1 to 1000"),
        (&get, "/v1/jobs?state=happy".to_owned(), "", 400, "`state`"),
        (&get, "/v1/jobs?label=x".to_owned(), "", 400, "name=value"),
        (&get, "/v1/jobs?before=x".to_owned(), "", 400, "`before`"),
        (&get, "/v2/everything".to_owned(), "", 404, "no such endpoint"),
        (&Method::DELETE, "/v1/jobs".to_owned(), "", 405, "DELETE"),
        (&put, "/v1/health".to_owned(), "", 405, "PUT"),
    ];
    for (method, path, text, status, words) in cases {
        let response = api.request(method.clone(), &path).body(text).send().await?;
        let detail = problem(response, StatusCode::from_u16(status)?)
            .await
            .with_context(|| format!("{method} {path} {text}"))?;
        assert!(detail.contains(words), "{method} {path} {text}: {detail}");
    }
    // None of it did any harm.
    api.submit_any().await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_opens_nothing_but_health() -> Result<()> {
    let api = Served::start().await?;
    for path in ["/v1/jobs", "/v1/workers", "/v1/facts", "/v1/files/x", "/v1/projection"] {
        let without = api.http.get(api.url(path)).send().await?;
        assert_eq!(without.headers()["www-authenticate"], "Bearer");
        assert!(problem(without, StatusCode::UNAUTHORIZED).await?.contains("Bearer <key>"));
        let wrong = api.http.get(api.url(path)).bearer_auth("guess").send().await?;
        assert!(problem(wrong, StatusCode::UNAUTHORIZED).await?.contains("wrong API key"));
    }
    let health = body(api.http.get(api.url("/v1/health")).send().await?, StatusCode::OK).await?;
    assert_eq!(
        (&health["status"], &health["nats"], &health["postgres"]),
        (&json!("ok"), &json!(true), &json!(false))
    );
    Ok(())
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_said_so() -> Result<()> {
    let api = Served::start().await?;
    let jobs = vec![json!({ "command": ["x"] }); 10_001];
    let detail = problem(api.post("/v1/jobs", &json!(jobs)).await?, StatusCode::PAYLOAD_TOO_LARGE).await?;
    assert!(detail.contains("several arrays"), "{detail}");
    let long = json!({ "command": ["x", "y".repeat(600 << 10)] });
    let detail = problem(api.post("/v1/jobs", &long).await?, StatusCode::UNPROCESSABLE_ENTITY).await?;
    assert!(detail.contains("524288"), "{detail}");
    let huge = vec![b' '; (64 << 20) + 1];
    let response = api.request(Method::POST, "/v1/jobs").body(huge).send().await?;
    assert!(problem(response, StatusCode::PAYLOAD_TOO_LARGE).await?.contains("fewer jobs"));
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_and_a_missing_key_are_said_before_anything_starts() -> Result<()> {
    let api = Served::start().await?;
    let taken = api.url("").trim_start_matches("http://").parse()?;
    let config = api::Config {
        listen: taken,
        ..api.config.clone()
    };
    let error = api::bind(config).await.expect_err("the port is taken").to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("--listen"), "{error}");
    let config = api::Config {
        key: String::new(),
        ..api.config.clone()
    };
    assert!(api::bind(config).await.expect_err("no key").to_string().contains("--key"));
    let config = api::Config {
        store: "ftp://x".to_owned(),
        ..api.config.clone()
    };
    assert!(api::bind(config).await.expect_err("no store").to_string().contains("ftp://x"));
    let config = api::Config {
        database_url: Some("mysql://x".to_owned()),
        ..api.config.clone()
    };
    assert!(
        api::bind(config)
            .await
            .expect_err("no database")
            .to_string()
            .contains("postgres://")
    );
    Ok(())
}
