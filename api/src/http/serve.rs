//! Accepts connections, and serves each of them.

use std::{convert::Infallible, os::fd::AsFd, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Body as _, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::{
    io::Errno,
    net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error};

use crate::http::{
    connections::{Connection, Connections, Limits, raise_descriptors},
    progress,
};

/// TCP keep-alive: the idle time before the first probe, the time between two probes, and how many there are.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Turns on TCP keep-alive, so that a connection whose client vanished is closed.
fn enable_keep_alive(stream: impl AsFd) -> Result<(), Errno> {
    set_tcp_keepidle(&stream, KEEP_ALIVE.0)?;
    set_tcp_keepintvl(&stream, KEEP_ALIVE.1)?;
    set_tcp_keepcnt(&stream, KEEP_ALIVE.2)?;
    set_socket_keepalive(&stream, true)
}

/// Accepts connections and serves them until `stop`; then returns once the requests in progress are answered.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let connections = Connections::new(limits, raise_descriptors());
    let tasks = TaskTracker::new();
    // Dropping the future of this function cuts all connections.
    let cut = CancellationToken::new();
    let _cut_when_dropped = cut.clone().drop_guard();
    while let Some(stream) = stop.run_until_cancelled(accept(&listener)).await {
        let serving = serve_connection(stream, connections.admit(), router.clone(), limits, stop.clone());
        tasks.spawn(cut.clone().run_until_cancelled_owned(serving));
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client closed the connection before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => {
                error!("cannot accept a connection: {error}; trying again in {} s", ACCEPT_PAUSE.as_secs());
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves the requests of one connection.
async fn serve_connection(stream: TcpStream, connection: Connection, router: Router, limits: Limits, stop: CancellationToken) {
    // Answers are small, and a client waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        debug!("cannot turn off Nagle's algorithm: {error}");
    }
    if let Err(error) = enable_keep_alive(&stream) {
        debug!("cannot turn on TCP keep-alive: {error}");
    }
    // A client that does not read its answer is disconnected: it would hold up what follows the log.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.patience));
    let (connection, router) = (Arc::new(connection), TowerToHyperService::new(router));
    let this = Arc::clone(&connection);
    let answer = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&this));
        let is_empty = request.body().is_end_stream();
        let request = request.map(|body| {
            let body = Body::new(body);
            if is_empty { body } else { progress::bounded(body, limits.patience) }
        });
        let answering = router.call(request);
        async move { answering.await.map_err(|never: Infallible| never) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle())
        .serve_connection(TokioIo::new(Box::pin(stream)), answer);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = connection.must_close(limits.patience) => return,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = connection.must_close(Duration::ZERO) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!("a connection broke: {error}");
    }
}
