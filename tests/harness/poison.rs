//! Messages that no client library can take: what the server passes on as it was published.

use anyhow::{Result, ensure};
use async_nats::ServerAddr;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// Headers that async-nats closes its connection at, or dies of.
pub const HEADERS: [&[u8]; 4] = [
    b"NATS/1.0\r\nX: \xff\r\n\r\n",
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"nonsense",
];

/// Publishes messages, each a subject and a header, as they are, and waits until the server has them.
///
/// # Errors
/// If the server cannot be reached, or refuses one.
pub async fn publish(url: &str, messages: impl Iterator<Item = (Vec<u8>, &[u8])>) -> Result<()> {
    let server: ServerAddr = url.parse()?;
    let (from, mut to) = TcpStream::connect((server.host(), server.port())).await?.into_split();
    let options = json!({ "verbose": false, "headers": true, "user": server.username(), "pass": server.password() });
    let mut bytes = format!("CONNECT {options}\r\n").into_bytes();
    let payload = b"{\"command\": [\"true\"]}";
    for (subject, header) in messages {
        bytes.extend(b"HPUB ");
        bytes.extend(subject);
        bytes.extend(format!(" {} {}\r\n", header.len(), header.len() + payload.len()).into_bytes());
        bytes.extend([header, payload, b"\r\n"].concat());
    }
    bytes.extend(b"PING\r\n");
    to.write_all(&bytes).await?;
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        ensure!(!line.starts_with("-ERR"), "{line}");
        if line == "PONG" {
            return Ok(());
        }
    }
    anyhow::bail!("the server closed the connection")
}
