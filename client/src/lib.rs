//! The HTTP client of the grid's API.

pub mod bounded;
mod direct;
mod download;
mod error;
mod events;
mod follow;
mod hashed;
mod insist;
mod links;
mod patience;
mod progress;
mod resumable;
mod upload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::Problem;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Serialize, de::DeserializeOwned};

use self::bounded::{Cut, MAX_JSON, MAX_PROBLEM, whole};
pub use self::{
    download::{Fetched, NewMode, ensure_inside, fetched, is_away, target},
    error::Error,
    events::Events,
    follow::{Follow, Item, Wanted, bytes_of},
    hashed::{Hashed, hash},
    links::{check_climb, check_link},
    progress::{Meter, Observer, Progress, Silent},
    upload::{Sent, put_bytes, upload},
};

/// How long the server may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer may take to begin: to a question (the storage of a large grid is looked through for some of them), to a change (a pass over
/// it), and to the end of an upload, which itself may take long.
const READ_PATIENCE: Duration = Duration::from_secs(180);
const CHANGE_PATIENCE: Duration = Duration::from_secs(600);
const UPLOAD_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A connection to a grid's API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Arc<str>,
    key: Option<Arc<str>>,
    direct: Arc<direct::Direct>,
    compresses: bool,
    /// Whether it was said that transfers break off.
    in_trouble: Arc<AtomicBool>,
    /// Whether the grid ever answered: the address is right then.
    answered: Arc<AtomicBool>,
    observer: Arc<dyn Observer>,
}

impl Client {
    /// A client of the API at a URL.
    pub fn new(url: &Url, key: Option<&str>) -> Result<Self, Error> {
        // A provider that is installed already is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = http(url).map_err(Error::Setup)?;
        Ok(Self {
            http,
            base: url.as_str().trim_end_matches('/').into(),
            key: key.map(Into::into),
            direct: Arc::default(),
            compresses: !is_here(url),
            in_trouble: Arc::default(),
            answered: Arc::default(),
            observer: Arc::new(Silent),
        })
    }

    /// Has files travel compressed where they shrink, or as they are. Unless it is said, they do to another machine.
    pub const fn compressing(mut self, compresses: bool) -> Self {
        self.compresses = compresses;
        self
    }

    /// Has this observer receive what transfers report.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    fn notice(&self, sentence: &str) {
        self.observer.notice(sentence);
    }

    fn begin(&self, verb: &'static str, bytes: u64) -> Progress {
        self.observer.begin(verb, bytes)
    }

    /// Where the API is.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// A request for a path (`/v1/…`, percent-encoded where it must be), with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Nobody answers, or the connection broke. A request that changes something may have been carried out all the same.
    fn unreachable(&self, cause: reqwest::Error, changes: bool) -> Error {
        Error::Unreachable {
            url: self.base.to_string(),
            indeterminate: changes && !cause.is_connect() && !cause.is_builder(),
            cause,
        }
    }

    /// An answer that was not read to its end.
    fn cut(&self, cut: Cut, changes: bool) -> Error {
        let url = self.base.to_string();
        match cut {
            Cut::Broke(cause) => self.unreachable(cause, changes),
            Cut::Silent => Error::Silent {
                url,
                indeterminate: changes,
            },
            Cut::TooLong(most) => Error::TooLong { url, most },
        }
    }

    /// Sends a request, and gives the answer if it is a good one.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let (http, request) = request.build_split();
        let request = request.map_err(|cause| self.unreachable(cause, false))?;
        // Contents are stored by their hash, once however often they are sent.
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD) && !request.url().path().contains("/v1/files/");
        let unreachable = |cause| self.unreachable(cause, changes);
        // A body that is streamed takes as long as it takes; the kernel ends a connection that takes none of it.
        let patience = match (request.body().is_none_or(|body| body.as_bytes().is_some()), request.method()) {
            (true, &Method::GET | &Method::HEAD) => READ_PATIENCE,
            (true, _) => CHANGE_PATIENCE,
            (false, _) => UPLOAD_PATIENCE,
        };
        let answer = tokio::time::timeout(patience, http.execute(request)).await;
        let silent = |changes| Error::Silent {
            url: self.base.to_string(),
            indeterminate: changes,
        };
        let response = answer.map_err(|_| silent(changes))?.map_err(unreachable)?;
        self.answered.store(true, Ordering::Relaxed);
        if response.status().is_success() || response.status() == StatusCode::TEMPORARY_REDIRECT {
            return Ok(response);
        }
        let status = response.status();
        let body = whole(response, MAX_PROBLEM).await.map_err(|cut| self.cut(cut, changes))?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Error::Problem(problem),
            Err(_) => Error::NotRgrid {
                url: self.base.to_string(),
                status,
            },
        })
    }

    /// Reads the JSON of a good answer.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let body = whole(response, MAX_JSON).await.map_err(|cut| self.cut(cut, false))?;
        serde_json::from_slice(&body).map_err(|source| Error::Answer {
            url: self.base.to_string(),
            status,
            source,
        })
    }

    /// `GET path?query`, as JSON.
    pub async fn get<T: DeserializeOwned, Q: Serialize + ?Sized>(&self, path: &str, query: &Q) -> Result<T, Error> {
        self.json(self.request(Method::GET, path).query(query)).await
    }

    /// `POST path` with a JSON body.
    pub async fn post<T: DeserializeOwned, B: Serialize + ?Sized>(&self, path: &str, body: &B) -> Result<T, Error> {
        self.json(self.request(Method::POST, path).json(body)).await
    }
}

/// A client for the server of a URL, without anything of ours in its requests.
fn http(url: &Url) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_PATIENCE)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none());
    if url.scheme() == "http" {
        // Nothing to verify: the machine's certificates, which may be absent, are not read.
        builder = builder.tls_certs_only([]);
    }
    if is_here(url) {
        builder = builder.no_proxy();
    }
    builder.build()
}

/// Whether a URL names this machine, which no proxy can reach for us.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A file's path as part of a URL. The `url` crate would drop the newlines in a name.
pub fn encode_path(path: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_can_stand_in_a_url() {
        assert_eq!(encode_path("out/a b\n%2e?#ü.csv"), "out/a%20b%0A%252e%3F%23%C3%BC.csv");
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (url, here) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost", true),
            ("http://[::1]:8", true),
            ("https://grid.example", false),
        ] {
            assert_eq!(is_here(&url.parse().expect("a URL")), here, "{url}");
        }
    }
}
