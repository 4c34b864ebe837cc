//! A relay between async-nats and nats-server. It checks what the server sends, and replaces each message that async-nats cannot handle
//! by one that it can: without payload, and with the reason ([`UNDELIVERABLE`]).
//!
//! So no published message can close a connection or crash a client, however the client reads it. All other bytes are passed on
//! unchanged, over the loopback interface. The relay only reads the first line and the header of a message.

mod owner;
mod record;
mod repair;
mod scan;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{ServerAddr, jetstream};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::debug;

pub(super) use self::record::record_replaced;
use self::scan::{Replaced, Scanner};
pub use self::{record::Undeliverable, repair::UNDELIVERABLE};

/// How much is read at once, in bytes.
const BUFFER: usize = 128 << 10;
/// The time limit for connecting to one server. async-nats gives up a connection after 5 s.
const REACH: Duration = Duration::from_secs(2);
/// The number of replaced messages that may wait to be recorded. Further ones are counted, but not recorded.
const UNRECORDED_MAX: usize = 4_096;

/// Why a message is undeliverable. `None` for a normal message; otherwise the message is a replacement for one that cannot be delivered.
#[must_use]
pub fn undeliverable(headers: Option<&async_nats::HeaderMap>) -> Option<&str> {
    headers?.get(UNDELIVERABLE).map(async_nats::HeaderValue::as_str)
}

/// The payload that was published with an undeliverable message, if the stream still has it.
pub async fn published(js: &jetstream::Context, stream: &str, sequence: u64) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Answer {
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        data: String,
    }
    // The answer is JSON, with header and payload in Base64.
    let wanted = serde_json::json!({ "seq": sequence });
    let answer: Answer = js.request(format!("STREAM.MSG.GET.{stream}"), &wanted).await.ok()?;
    STANDARD.decode(answer.message.data).ok()
}

/// A relay to some servers. It accepts no more connections after it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    /// The relay's own addresses, one for each server.
    pub(super) addresses: Vec<SocketAddr>,
    servers: Arc<Servers>,
    _stop_on_drop: DropGuard,
}

/// The servers that the relay connects to.
#[derive(Debug)]
struct Servers {
    /// The host and port of each server: those in the configuration, and those that these servers announced.
    known: Mutex<Vec<(String, u16)>>,
    /// The server to try next. async-nats opens another connection if one is useless.
    next: AtomicUsize,
    /// Why no server could be reached at the last try.
    failure: Mutex<Option<io::Error>>,
    /// Whether a server requires TLS, so that the relay cannot read its messages.
    encrypted: AtomicBool,
    replaced: mpsc::Sender<Replaced>,
}

impl Relay {
    /// Begins to listen, and sends a record of each replaced message to `replaced`.
    ///
    /// # Errors
    /// If it cannot listen.
    pub(super) async fn start(servers: &[ServerAddr]) -> io::Result<(Self, mpsc::Receiver<Replaced>)> {
        let (sender, replaced) = mpsc::channel(UNRECORDED_MAX);
        let count = servers.len().max(1);
        let known: Vec<_> = servers.iter().map(|server| (server.host().to_owned(), server.port())).collect();
        let servers = Arc::new(Servers {
            next: AtomicUsize::new(rand::random_range(0..count)),
            known: Mutex::new(known),
            failure: Mutex::default(),
            encrypted: AtomicBool::new(false),
            replaced: sender,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut addresses = Vec::new();
        for _ in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(listener.local_addr()?);
            let (servers, stop, connections) = (Arc::clone(&servers), stop.clone(), tasks.clone());
            tasks.spawn(async move { stop.run_until_cancelled(accept(&listener, &servers, &connections)).await });
        }
        let relay = Self {
            addresses,
            servers,
            _stop_on_drop: stop.drop_guard(),
        };
        Ok((relay, replaced))
    }

    /// Why no server could be reached, if none could.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.servers.failure.lock().take()
    }

    /// Whether a server requires TLS.
    pub(super) fn encrypted(&self) -> bool {
        self.servers.encrypted.load(Ordering::Relaxed)
    }
}

/// Accepts connections. A connection outlives its listener, so that everything that the client sent before its end is passed on.
async fn accept(listener: &TcpListener, servers: &Arc<Servers>, connections: &TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                let servers = Arc::clone(servers);
                connections.spawn(async move {
                    if !owner::is_ours(&client, peer).await {
                        debug!("refused to relay a connection of another user of this machine");
                    } else if let Err(error) = relay(client, &servers).await {
                        debug!("a connection to NATS ended: {error}");
                    }
                });
            }
            // Most likely, there are no file descriptors left. async-nats tries again.
            Err(error) => {
                debug!("cannot accept a connection: {error}");
                tokio::time::sleep(REACH / 10).await;
            }
        }
    }
}

/// Relays one connection until one side ends it.
async fn relay(mut client: TcpStream, servers: &Servers) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = servers.reach().await?;
    server.set_nodelay(true)?;
    let (from_server, to_server) = server.split();
    let (from_client, to_client) = client.split();
    tokio::select! {
        ended = down(from_server, to_client, servers) => ended,
        ended = up(from_client, to_server) => ended,
    }
}

/// Passes on what the client sends.
async fn up(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        to.write_all_buf(&mut buffer).await?;
    }
}

/// Passes on what the server sends.
async fn down(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, servers: &Servers) -> io::Result<()> {
    let (mut buffer, mut scanner, mut replaced) = (BytesMut::new(), Scanner::default(), Vec::new());
    let mut has_read_info = false;
    loop {
        buffer.reserve(BUFFER);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let pieces = scanner.scan(&mut buffer, &mut replaced).map_err(io::Error::other)?;
        if !has_read_info && let Some(greeting) = pieces.first() {
            has_read_info = true;
            servers.read_info(greeting);
        }
        for piece in pieces {
            to.write_all(&piece).await?;
        }
        for message in replaced.drain(..) {
            // If too many wait, this one is not recorded.
            servers.replaced.try_send(message).ok();
        }
    }
}

impl Servers {
    /// Connects to the next server that can be reached.
    async fn reach(&self) -> io::Result<TcpStream> {
        let known = self.known.lock().clone();
        let first = self.next.load(Ordering::Relaxed);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for place in (first..).take(known.len()) {
            let (host, port) = &known[place % known.len()];
            // Advance first, so that the next attempt uses another server even if this one times out.
            self.next.store((place + 1) % known.len(), Ordering::Relaxed);
            match tokio::time::timeout(REACH, TcpStream::connect((host.as_str(), *port))).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
        }
        let told = io::Error::new(failure.kind(), failure.to_string());
        *self.failure.lock() = Some(failure);
        Err(told)
    }

    /// Reads a server's first line: the other servers of its cluster, and whether it requires TLS.
    fn read_info(&self, greeting: &[u8]) {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            connect_urls: Vec<String>,
            #[serde(default)]
            tls_required: bool,
        }
        let line = greeting.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let Some(Ok(info)) = line.strip_prefix(b"INFO ").map(serde_json::from_slice::<Info>) else {
            return;
        };
        if info.tls_required {
            self.encrypted.store(true, Ordering::Relaxed);
        }
        let mut known = self.known.lock();
        for url in info.connect_urls {
            let Ok(server) = url.parse::<ServerAddr>() else { continue };
            let server = (server.host().to_owned(), server.port());
            if !known.contains(&server) {
                known.push(server);
            }
        }
    }
}
