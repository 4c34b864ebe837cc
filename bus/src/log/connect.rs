//! Connecting to NATS, and checking that the server can be relied on.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{self, context::ContextBuilder},
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::relay::{self, Relay};

/// The oldest supported nats-server. Older versions have bugs that lose track of pending messages and of owners inside atomic batches.
pub const MIN_SERVER: (u64, u64, u64) = (2, 14, 5);

/// How long one publish waits for its acknowledgement before it is tried again. If the broker froze for 6 s and lost the connection with
/// everything sent meanwhile, the next try must still fit into the API's time limit.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long any other request waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of publishes of one process that may wait for their acknowledgement at once.
const MAX_IN_FLIGHT: usize = 8_192;
/// How often a wait for an answer checks whether the connection was made again. A restarted server does not know earlier requests, and
/// the client library would wait for 5 s.
const LOOK: Duration = Duration::from_millis(200);
/// The longest pause between two tries to reconnect (async-nats: 4 s). Short, so that a restarted server is found soon.
const RECONNECT_CAP: Duration = Duration::from_millis(500);
/// How often a silent connection is pinged (async-nats: 60 s).
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How often a silent side connection is pinged. Its requests have time limits of their own.
const SIDE_PING_INTERVAL: Duration = Duration::from_secs(6);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not the URL of a NATS server.
    #[error("`{url}` is not a NATS URL; write nats://user:password@host:4222, or several separated by commas")]
    Url {
        /// The text, without its password.
        url: String,
        /// The error in the text.
        #[source]
        source: std::io::Error,
    },
    /// No server answers, or the server refuses the connection.
    #[error("cannot connect to NATS at {servers}; is nats-server running there, and are user and password right?")]
    Connect {
        /// The servers, without their passwords.
        servers: String,
        /// The error.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server is too old.
    #[error(
        "nats-server at {servers} is version {found}, and rgrid needs 2.14.5 or newer; \
         get one at https://github.com/nats-io/nats-server/releases"
    )]
    TooOld {
        /// The servers, without their passwords.
        servers: String,
        /// The server's version.
        found: String,
    },
    /// The server does not offer JetStream.
    #[error("nats-server at {servers} runs without JetStream; start it with `-js`, or `jetstream {{}}` in its configuration")]
    NoJetStream {
        /// The servers, without their passwords.
        servers: String,
    },
}

/// A connection to NATS with its JetStream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    /// The connection.
    pub client: Client,
    /// JetStream over this connection.
    pub js: jetstream::Context,
}

impl Bus {
    /// Connects to the first of the servers that answers (`nats://user:password@host:port`, separated by commas), and checks the server's
    /// version. Operators and advisories see the connection under `name`.
    ///
    /// # Errors
    /// If the URLs are invalid, no server answers, or the server cannot be used.
    pub async fn connect(urls: &str, name: &str) -> Result<Self, Error> {
        Self::pinging(urls, name, PING_INTERVAL).await
    }

    async fn pinging(urls: &str, name: &str, ping_interval: Duration) -> Result<Self, Error> {
        let servers = parse(urls)?;
        let shown = redacted(&servers);
        let client = connect(name, &servers, ping_interval).await.map_err(|source| Error::Connect {
            servers: shown.clone(),
            source,
        })?;
        let server = client.server_info();
        if version(&server.version).is_none_or(|found| found < MIN_SERVER) {
            return Err(Error::TooOld {
                servers: shown,
                found: server.version,
            });
        }
        if !server.jetstream {
            return Err(Error::NoJetStream { servers: shown });
        }
        let js = ContextBuilder::new()
            .timeout(ANSWER_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .max_ack_inflight(MAX_IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(client.clone());
        debug!(server.version, "connected to {shown} as {name}");
        Ok(Self { client, js })
    }
}

/// Connects as [`Bus::connect`] does, and waits for as long as no server answers.
///
/// # Errors
/// If the URLs are invalid, or the server that answers cannot be used.
pub async fn patiently(urls: &str, name: &str) -> Result<Bus, Error> {
    pinging_patiently(urls, name, PING_INTERVAL).await
}

/// Like [`patiently`], for a second connection of a program that is seldom used. Thousands of idle workers have one each, and a ping
/// costs the server as much as a message.
///
/// # Errors
/// If the URLs are invalid, or the server that answers cannot be used.
pub async fn side_connection(urls: &str, name: &str) -> Result<Bus, Error> {
    pinging_patiently(urls, name, SIDE_PING_INTERVAL).await
}

async fn pinging_patiently(urls: &str, name: &str, ping_interval: Duration) -> Result<Bus, Error> {
    let mut told = false;
    loop {
        match Bus::pinging(urls, name, ping_interval).await {
            Err(error @ Error::Connect { .. }) => {
                if !std::mem::replace(&mut told, true) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    warn!("{error} ({cause}); waiting for NATS");
                }
                tokio::time::sleep(RECONNECT_CAP).await;
            }
            connected => return connected,
        }
    }
}

/// How often this client's connection was made.
pub(super) fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// The number of the connection over which a message sent now would go; the next number if there is no connection.
pub(super) fn connection(client: &Client) -> u64 {
    connects(client) + u64::from(client.connection_state() != State::Connected)
}

/// The result of a request that was sent over the connection with this number; `None` once that connection is gone and there is another.
/// No answer can arrive then, and the client library would wait for its whole time limit.
pub(super) async fn unless_reconnected<F: Future>(client: &Client, connection: u64, answer: F) -> Option<F::Output> {
    let mut answer = std::pin::pin!(answer);
    loop {
        if let Ok(answer) = tokio::time::timeout(LOOK, &mut answer).await {
            return Some(answer);
        }
        if connects(client) > connection {
            return None;
        }
    }
}

/// Connects through our own relay, which filters messages that the client cannot handle. Servers that require TLS are connected to
/// directly.
async fn connect(name: &str, servers: &[ServerAddr], ping_interval: Duration) -> Result<Client, ConnectError> {
    let options = |name: &str, servers: &[ServerAddr], relay| options(name, servers, relay).ping_interval(ping_interval);
    let failed = |error: io::Error| ConnectError::with_source(ConnectErrorKind::Io, error);
    if servers.iter().any(ServerAddr::tls_required) {
        return options(name, servers, None).connect(servers).await;
    }
    let (relay, replaced) = Relay::start(servers).await.map_err(failed)?;
    let relay = Arc::new(relay);
    let local: Result<Vec<ServerAddr>, _> = relay
        .addresses
        .iter()
        .map(|address| format!("nats://{address}").parse::<ServerAddr>())
        .collect();
    // The connection's callback holds the relay, so the relay ends when the last clone of the client is dropped.
    let options_of_relay = options(name, servers, Some(Arc::clone(&relay))).ignore_discovered_servers();
    match options_of_relay.connect(local.map_err(failed)?).await {
        Ok(client) => {
            let (servers, name) = (servers.to_vec(), format!("{name}/undeliverable"));
            let recording = relay::record_replaced(servers.clone(), move || self::options(&name, &servers, None), replaced);
            TaskTracker::new().spawn(recording);
            Ok(client)
        }
        Err(_) if relay.encrypted() => options(name, servers, None).connect(servers).await,
        Err(error) => Err(relay.failure().map_or(error, failed)),
    }
}

fn options(name: &str, servers: &[ServerAddr], relay: Option<Arc<Relay>>) -> ConnectOptions {
    // async-nats 0.51 does not read the credentials in a URL.
    let user = servers
        .iter()
        .find_map(|server| Some((server.username()?, server.password().unwrap_or_default())));
    user.map_or_else(ConnectOptions::new, |(user, password)| {
        ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
    })
    .name(name)
    .ping_interval(PING_INTERVAL)
    .reconnect_delay_callback(|attempts| {
        let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(8);
        RECONNECT_CAP.min(Duration::from_millis(10 << doublings))
    })
    .subscription_capacity(65_536)
    .event_callback(move |event| {
        let _held = &relay;
        log_event(event);
        std::future::ready(())
    })
}

/// Logs what happened to the connection.
fn log_event(event: Event) {
    match event {
        Event::Disconnected => warn!("lost the connection to NATS; reconnecting"),
        Event::Connected => debug!("connected to NATS"),
        Event::SlowConsumer(id) => warn!("subscription {id} is too slow; some of its messages were dropped and will be delivered again"),
        Event::ClientError(error) => warn!("NATS client: {error}"),
        Event::ServerError(error) => warn!("NATS server: {error}"),
        Event::LameDuckMode => info!("the NATS server is about to stop; moving to another server, or waiting for this one"),
        Event::Draining | Event::Closed => debug!("the connection to NATS is closing"),
    }
}

fn parse(urls: &str) -> Result<Vec<ServerAddr>, Error> {
    let parse_one = |url: &str| {
        url.parse().map_err(|source| Error::Url {
            url: url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned(),
            source,
        })
    };
    urls.split(',').map(str::trim).map(parse_one).collect()
}

fn redacted(servers: &[ServerAddr]) -> String {
    servers
        .iter()
        .map(|server| format!("{}:{}", server.host(), server.port()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Reads a version such as `2.15.1`, also with a suffix such as `-RC.1`.
#[must_use]
pub fn version(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.trim_start_matches('v').split(['.', '-', '+']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("2.9.25").is_some_and(|found| found < MIN_SERVER));
        assert!(version("2.14.5").is_some_and(|found| found >= MIN_SERVER));
        assert!(version("v2.15.1-RC.2").is_some_and(|found| found >= MIN_SERVER));
        assert_eq!(version("dev"), None);
    }

    #[test]
    fn an_error_about_a_url_does_not_show_the_password() {
        let error = parse("nats://me:secret@ho st").expect_err("a host has no space");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
