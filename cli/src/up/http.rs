//! One GET on loopback. A client with TLS and a pool would cost the supervisor several megabytes for a question it asks twice.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Url;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Asks the API, and returns the JSON of a 200.
pub(super) async fn get(api: &Url, path: &str, key: &str) -> anyhow::Result<serde_json::Value> {
    tokio::time::timeout(PATIENCE, exchange(api, path, key))
        .await
        .with_context(|| format!("{api} did not answer within {PATIENCE:?}"))?
}

async fn exchange(api: &Url, path: &str, key: &str) -> anyhow::Result<serde_json::Value> {
    let host = api.host_str().context("the API's URL has no host")?;
    let port = api.port_or_known_default().context("the API's URL has no port")?;
    let mut stream = TcpStream::connect((host, port)).await?;
    // In HTTP/1.0 the answer is whole when the connection ends: no chunks, no keep-alive.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut answer).await?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> anyhow::Result<serde_json::Value> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer is not HTTP")?;
    let (head, body) = answer.split_at(end);
    let status = String::from_utf8_lossy(head)
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    anyhow::ensure!(status == "200", "the API answered with status {status}");
    serde_json::from_slice(body).context("the answer is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_200_is_an_answer() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"status\":\"ok\"}";
        assert_eq!(parse(ok).expect("it is one")["status"], "ok");
        let refused = parse(b"HTTP/1.1 401 Unauthorized\r\n\r\n{}").expect_err("a refusal");
        assert_eq!(refused.to_string(), "the API answered with status 401");
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n{\"cut").is_err());
    }
}
