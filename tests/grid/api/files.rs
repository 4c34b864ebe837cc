//! Contents over HTTP.

use std::io;

use anyhow::Result;
use bus::ids::Digest;
use bytes::Bytes;
use reqwest::{Body, Method, RequestBuilder, StatusCode, header};
use serde_json::json;

use super::served::{Served, body, problem};

fn put(api: &Served, digest: &Digest, content: impl Into<Body>) -> RequestBuilder {
    api.request(Method::PUT, &format!("/v1/files/{digest}")).body(content)
}

#[tokio::test]
async fn a_file_goes_up_once_and_comes_down_as_it_was() -> Result<()> {
    let api = Served::start().await?;
    let content: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let digest = Digest::of(&content);
    let asked = json!({ "sha256": [digest.to_string(), digest.to_string()] });
    let missing = body(api.post("/v1/files/missing", &asked).await?, StatusCode::OK).await?;
    assert_eq!(missing["missing"], json!([digest.to_string()]));
    assert_eq!(put(&api, &digest, content.clone()).send().await?.status(), StatusCode::CREATED);
    assert_eq!(put(&api, &digest, content.clone()).send().await?.status(), StatusCode::OK);
    let missing = body(api.post("/v1/files/missing", &asked).await?, StatusCode::OK).await?;
    assert_eq!(missing["missing"], json!([]));
    let response = api.get(&format!("/v1/files/{digest}")).await?;
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "5000000");
    assert_eq!(response.headers()[header::ETAG], format!("\"{digest}\""));
    assert!(response.bytes().await? == content);
    let head = api.request(Method::HEAD, &format!("/v1/files/{digest}")).send().await?;
    assert_eq!(
        (head.status(), head.headers()[header::CONTENT_LENGTH].to_str()?),
        (StatusCode::OK, "5000000")
    );
    assert!(head.bytes().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_empty_file_is_a_file_too() -> Result<()> {
    let api = Served::start().await?;
    let digest = Digest::of(b"");
    let request = put(&api, &digest, "").header(header::CONTENT_LENGTH, 0);
    assert_eq!(request.send().await?.status(), StatusCode::CREATED);
    let response = api.get(&format!("/v1/files/{digest}")).await?;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_not_what_they_are_called_are_not_stored() -> Result<()> {
    let api = Served::start().await?;
    let digest = Digest::of(b"the real one");
    for content in [b"another one!".to_vec(), vec![7; 3_000_000]] {
        let detail = problem(put(&api, &digest, content).send().await?, StatusCode::UNPROCESSABLE_ENTITY).await?;
        assert!(detail.contains(&digest.to_string()), "{detail}");
    }
    problem(api.get(&format!("/v1/files/{digest}")).await?, StatusCode::NOT_FOUND).await?;
    Ok(())
}

#[tokio::test]
async fn a_file_of_unknown_length_or_more_than_is_allowed_is_refused() -> Result<()> {
    let nats = grid_tests::nats::NatsServer::start().await?;
    let api = Served::start_on(nats, |config| config.max_upload_bytes = 10).await?;
    let stream = futures::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"x"))]);
    let chunked = put(&api, &Digest::of(b"x"), Body::wrap_stream(stream)).send().await?;
    problem(chunked, StatusCode::LENGTH_REQUIRED).await?;
    let long = put(&api, &Digest::of(b"01234567890"), "01234567890").send().await?;
    assert!(problem(long, StatusCode::PAYLOAD_TOO_LARGE).await?.contains("at most 10 bytes"));
    assert_eq!(
        put(&api, &Digest::of(b"0123456789"), "0123456789").send().await?.status(),
        StatusCode::CREATED
    );
    Ok(())
}

#[tokio::test]
async fn a_part_can_be_had_by_its_range() -> Result<()> {
    let api = Served::start().await?;
    // Longer than one step of reading.
    let content: Vec<u8> = (0..9_000_000_u32).map(|number| (number % 253) as u8).collect();
    let digest = api.files().await?.put_bytes(content.clone().into()).await?;
    let range = async |range: &str| {
        api.request(Method::GET, &format!("/v1/files/{digest}"))
            .header(header::RANGE, range)
            .send()
            .await
    };
    for (asked, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-8499999", 100, 8_500_000),
        ("bytes=-5", 8_999_995, 9_000_000),
    ] {
        let response = range(asked).await?;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{asked}");
        let place = format!("bytes {from}-{}/9000000", to - 1);
        assert_eq!(response.headers()[header::CONTENT_RANGE], place);
        assert!(response.bytes().await? == content[from..to], "{asked}");
    }
    let outside = range("bytes=9000000-").await?;
    assert_eq!(outside.headers()[header::CONTENT_RANGE], "bytes */9000000");
    problem(outside, StatusCode::RANGE_NOT_SATISFIABLE).await?;
    let cached = api.request(Method::GET, &format!("/v1/files/{digest}"));
    let cached = cached.header(header::IF_NONE_MATCH, format!("\"{digest}\"")).send().await?;
    assert_eq!(cached.status(), StatusCode::NOT_MODIFIED);
    Ok(())
}
