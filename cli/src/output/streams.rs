//! A job's two streams on our own.

use std::io;

use bus::output::frame::Stream;
use client::bytes_of;
use model::LogPiece;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, Stderr, Stdout};

use super::written;

/// Our standard output and standard error, written to without holding up anything else.
pub(crate) struct Streams {
    out: Stdout,
    err: Stderr,
    /// Both to standard error, since standard output carries JSON.
    apart: bool,
}

impl Streams {
    /// Each stream on its own.
    pub(crate) fn new() -> Self {
        Self {
            out: tokio::io::stdout(),
            err: tokio::io::stderr(),
            apart: true,
        }
    }

    /// Both on standard error.
    pub(crate) fn on_stderr() -> Self {
        Self {
            apart: false,
            ..Self::new()
        }
    }

    /// Writes a piece where it belongs, byte by byte as it was printed.
    ///
    /// # Errors
    /// If it cannot be written; [`super::Closed`] if nobody reads any more.
    pub(crate) async fn write(&mut self, piece: LogPiece) -> anyhow::Result<()> {
        let stream = piece.stream;
        self.write_bytes(stream, &bytes_of(piece)).await
    }

    /// Writes bytes to the stream that they belong to.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) async fn write_bytes(&mut self, stream: Stream, bytes: &[u8]) -> anyhow::Result<()> {
        match stream {
            Stream::Stdout if self.apart => put(&mut self.out, bytes).await.map_err(written),
            Stream::Stdout | Stream::Stderr => put(&mut self.err, bytes).await.map_err(written),
        }
    }
}

/// Tokio's own buffer would hide a closed pipe until the next write.
async fn put(target: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    target.write_all(bytes).await?;
    target.flush().await
}
