//! What a container writes, separated again into its two streams.

use std::pin::Pin;

use bollard::{container::LogOutput, errors::Error};
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, ReadHalf, SimplexStream, WriteHalf, simplex};
use tokio_util::task::TaskTracker;
use tracing::warn;

/// How much waits to be read. A slow reader then holds up the container, as a pipe would.
const BUFFER: usize = 64 * 1024;

/// Separates standard output from standard error. A task of `tasks` carries the bytes until the container is gone.
pub(super) fn separate(
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    tasks: &TaskTracker,
) -> (ReadHalf<SimplexStream>, ReadHalf<SimplexStream>) {
    let (stdout, stdout_writer) = simplex(BUFFER);
    let (stderr, stderr_writer) = simplex(BUFFER);
    tasks.spawn(carry(output, stdout_writer, stderr_writer));
    (stdout, stderr)
}

async fn carry(
    mut output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    mut stdout: WriteHalf<SimplexStream>,
    mut stderr: WriteHalf<SimplexStream>,
) {
    while let Some(piece) = output.next().await {
        let written = match piece {
            Ok(LogOutput::StdErr { message }) => stderr.write_all(&message).await,
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => stdout.write_all(&message).await,
            Ok(LogOutput::StdIn { .. }) => Ok(()),
            Err(error) => {
                warn!("a container's output broke off: {error}");
                break;
            }
        };
        // A reader that went away is no reason to hold up the container: what is for it is dropped.
        drop(written);
    }
    stdout.shutdown().await.ok();
    stderr.shutdown().await.ok();
}
