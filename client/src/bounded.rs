//! What is read of an answer: no more than was announced or makes sense, and nothing that never comes.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use reqwest::Response;

/// How long an answer may send nothing at all.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// The longest answer in JSON, in bytes: a list of 200,000 outputs with names of a kilobyte each.
pub(super) const MAX_JSON: usize = 256 << 20;
/// The longest answer that says what is wrong, in bytes.
pub(super) const MAX_PROBLEM: usize = 1 << 20;

/// Why no more of an answer is read.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The connection broke.
    #[error("the connection broke")]
    Broke(#[from] reqwest::Error),
    /// Nothing came for a while.
    #[error("no data arrived for {} s", SILENCE.as_secs())]
    Silent,
    /// It is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// The bytes of an answer as they come, until nothing comes for a while.
pub fn unless_silent(response: Response) -> impl Stream<Item = Result<Bytes, Cut>> + Send {
    stream::unfold(Some(response.bytes_stream().boxed()), |chunks| async move {
        let mut chunks = chunks?;
        match tokio::time::timeout(SILENCE, chunks.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(Cut::Broke(error)), None)),
            Err(_) => Some((Err(Cut::Silent), None)),
        }
    })
}

/// All of an answer, of at most so many bytes.
///
/// # Errors
/// If it breaks off, falls silent, or is longer.
pub async fn whole(response: Response, most: usize) -> Result<Vec<u8>, Cut> {
    let mut bytes = Vec::new();
    let mut chunks = std::pin::pin!(unless_silent(response));
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > most {
            return Err(Cut::TooLong(most));
        }
    }
    Ok(bytes)
}

/// The end of an answer, of at most so many bytes; nothing where it breaks off.
pub async fn end(response: Response, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunks = std::pin::pin!(unless_silent(response));
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > most * 2 {
            bytes.drain(..bytes.len() - most);
        }
    }
    bytes.drain(..bytes.len().saturating_sub(most));
    bytes
}

#[cfg(test)]
mod tests {
    use crate::Progress;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use bus::ids::Digest;

    use super::*;
    use crate::{Client, Error, fetched};

    /// A server that takes a request, answers this, and then says nothing more.
    fn answering(answer: Vec<u8>) -> anyhow::Result<Client> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        std::thread::spawn(move || {
            let mut taken = Vec::new();
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let _request = stream.read(&mut [0; 4096]);
                let _sent = stream.write_all(&answer);
                // It stays open.
                taken.push(stream);
            }
        });
        Ok(Client::new(&url.parse()?, None)?)
    }

    #[tokio::test]
    async fn who_never_answers_is_not_waited_for_for_ever() -> anyhow::Result<()> {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
            let client = answering(answer.to_vec())?;
            tokio::time::pause();
            let error = client.get::<serde_json::Value, _>("/v1/jobs", &()).await.expect_err("it is silent");
            tokio::time::resume();
            let said = error.to_string();
            assert!(said.contains("does not answer") && said.contains("rgrid doctor"), "{said}");
            assert!(error.may_pass());
        }
        Ok(())
    }

    #[tokio::test]
    async fn no_more_is_read_than_was_announced() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let content = b"xxxxx";
        let client = answering([&b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nxxxxx\r\n5\r\nyyyyy\r\n"[..]].concat())?;
        let file = serde_json::from_value(serde_json::json!({ "path": "a", "sha256": Digest::of(content), "size": content.len() }))?;
        let Err(error) = fetched(&client, &file, dir.path(), &Progress::hidden()).await else {
            anyhow::bail!("it is longer")
        };
        assert!(error.to_string().contains("more than the 5 bytes"), "{error:#}");
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "nothing of it is left");
        Ok(())
    }

    #[tokio::test]
    async fn a_long_answer_is_an_error_and_of_a_log_only_the_end_is_kept() -> anyhow::Result<()> {
        let body = "0123456789".repeat(1000);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let client = answering(answer.clone().into_bytes())?;
        let ask = || client.send(client.request(reqwest::Method::GET, "/x"));
        assert!(matches!(whole(ask().await?, 9_999).await, Err(Cut::TooLong(9_999))));
        assert_eq!(whole(ask().await?, 10_000).await?.len(), 10_000);
        assert_eq!(end(ask().await?, 15).await, b"567890123456789");
        let error = client.get::<serde_json::Value, _>("/x", &()).await.expect_err("no JSON");
        assert!(matches!(error, Error::Answer { .. }), "{error}");
        Ok(())
    }
}
