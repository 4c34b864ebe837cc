//! An API in the test's own process, and the means to talk to it.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bus::ids::JobId;
use grid_tests::{
    nats::NatsServer,
    postgres::Postgres,
    writer::{Worker, Writer},
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use store::Files;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// How long anything may take on a busy machine before it counts as not happening.
pub(crate) const LONG: Duration = Duration::from_secs(30);
const KEY: &str = "a key of the tests";

/// An API that serves, with a nats-server of its own.
pub(crate) struct Served {
    pub(crate) nats: NatsServer,
    pub(crate) writer: Writer,
    pub(crate) config: api::Config,
    dir: TempDir,
    pub(crate) http: Client,
    base: String,
    stop: CancellationToken,
    serving: Option<JoinHandle<Result<(), api::Error>>>,
}

impl Served {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_on(NatsServer::start().await?, |_| {}).await
    }

    /// With tables, which somebody must fill.
    pub(crate) async fn start_with_tables(postgres: &Postgres) -> Result<Self> {
        let url = postgres.url().to_owned();
        Self::start_on(NatsServer::start().await?, |config| config.database_url = Some(url)).await
    }

    /// With tables, and a projector that fills them for as long as its guard lives.
    pub(crate) async fn start_with_projector() -> Result<(Self, DropGuard)> {
        let postgres = Postgres::start().await?;
        let api = Self::start_with_tables(&postgres).await?;
        let projector = api.projector(postgres.url());
        // It makes the tables when it starts.
        eventually(async || Ok(api.get("/v1/jobs").await?.status() == StatusCode::OK)).await?;
        Ok((api, projector))
    }

    /// A projector beside it, which ends with its guard.
    pub(crate) fn projector(&self, database_url: &str) -> DropGuard {
        let stop = CancellationToken::new();
        let config = projector::Config {
            nats: self.config.nats.clone(),
            replicas: 1,
            database_url: database_url.to_owned(),
            store: self.config.store.clone(),
        };
        TaskTracker::new().spawn(projector::run(config, stop.clone()));
        stop.drop_guard()
    }

    pub(crate) async fn start_on(nats: NatsServer, change: impl FnOnce(&mut api::Config)) -> Result<Self> {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let dir = TempDir::with_prefix("rgrid-api-")?;
        let mut config = api::Config {
            nats: nats.url().to_owned(),
            replicas: 1,
            database_url: None,
            store: format!("file://{}/store", dir.path().display()),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            key: KEY.to_owned(),
            secrets_key: None,
            max_upload_bytes: api::Config::MAX_UPLOAD_BYTES,
            runtimes: None,
            storage_config: api::StorageConfig::default(),
            // On a busy machine, a test may have much to do before it reads an answer.
            limits: api::Limits {
                patience: Duration::from_secs(600),
                ..api::Limits::default()
            },
        };
        change(&mut config);
        let writer = Writer::connect(nats.url()).await?;
        let mut served = Self {
            nats,
            writer,
            config,
            dir,
            http: Client::builder().tcp_nodelay(true).build()?,
            base: String::new(),
            stop: CancellationToken::new(),
            serving: None,
        };
        served.serve().await?;
        Ok(served)
    }

    async fn serve(&mut self) -> Result<()> {
        let bound = api::bind(self.config.clone()).await?;
        self.base = format!("http://{}", bound.address());
        self.stop = CancellationToken::new();
        self.serving = Some(TaskTracker::new().spawn(bound.serve(self.stop.clone())));
        Ok(())
    }

    /// Ends the API in good order.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.stop.cancel();
        let serving = self.serving.take().context("it does not serve")?;
        Ok(tokio::time::timeout(LONG, serving).await???)
    }

    /// Starts it again, on another port.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.serve().await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request with the key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(KEY)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Response> {
        Ok(self.request(Method::GET, path).send().await?)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Response> {
        Ok(self.request(Method::POST, path).json(body).send().await?)
    }

    /// What a page says, if it says 200.
    pub(crate) async fn read(&self, path: &str) -> Result<Value> {
        body(self.get(path).await?, StatusCode::OK).await
    }

    pub(crate) async fn submit(&self, job: &Value) -> Result<JobId> {
        let submitted = body(self.post("/v1/jobs", job).await?, StatusCode::CREATED).await?;
        id(&submitted)
    }

    /// A job that does nothing.
    pub(crate) async fn submit_any(&self) -> Result<JobId> {
        self.submit(&json!({ "command": ["true"] })).await
    }

    pub(crate) async fn worker(&self, name: &str) -> Result<Worker> {
        Worker::register(&self.writer, name).await
    }

    /// The store that the API uses.
    pub(crate) async fn files(&self) -> Result<Files> {
        let context = self.nats.context().await?;
        Ok(Files::open(&self.config.store.parse()?, Some(context)).await?)
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits for a fact.
pub(crate) async fn eventually(mut true_now: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    tokio::time::timeout(LONG, async {
        while !true_now().await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
    .await
    .context("it did not come true")?
}

/// A JSON answer, if it has this status.
pub(crate) async fn body(response: Response, status: StatusCode) -> Result<Value> {
    let (found, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    ensure!(found == status, "{url} answered {found} instead of {status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("{url} answered no JSON: {text}"))
}

/// A problem document, if it is one and has this status; returns its `detail`.
pub(crate) async fn problem(response: Response, status: StatusCode) -> Result<String> {
    let kind = response
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok())
        .map(ToOwned::to_owned);
    let document = body(response, status).await?;
    ensure!(kind.as_deref() == Some("application/problem+json"), "{kind:?}: {document}");
    ensure!(document["status"] == status.as_u16(), "{document}");
    ensure!(document["type"].is_string() && document["title"].is_string(), "{document}");
    Ok(document["detail"].as_str().context("no detail")?.to_owned())
}

pub(crate) fn id(document: &Value) -> Result<JobId> {
    Ok(document["id"].as_str().with_context(|| format!("no id in {document}"))?.parse()?)
}

/// An event of an SSE answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sse {
    pub(crate) event: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

/// The events of an SSE answer, as they come.
pub(crate) struct Events {
    response: Response,
    text: Vec<u8>,
}

impl Events {
    pub(crate) fn new(response: Response) -> Result<Self> {
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        let kind = response.headers()["content-type"].to_str()?;
        ensure!(kind == "text/event-stream", "{kind}");
        Ok(Self {
            response,
            text: Vec::new(),
        })
    }

    /// The next event; nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Sse>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                if let Some(event) = read_event(std::str::from_utf8(&block)?)? {
                    return Ok(Some(event));
                }
                continue;
            }
            match tokio::time::timeout(LONG, self.response.chunk()).await.context("no event came")?? {
                Some(bytes) => self.text.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// The next one, which must be there.
    pub(crate) async fn must(&mut self) -> Result<Sse> {
        self.next().await?.context("the events ended")
    }

    /// All that are left.
    pub(crate) async fn rest(mut self) -> Result<Vec<Sse>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }
}

fn read_event(block: &str) -> Result<Option<Sse>> {
    let (mut event, mut id, mut data) = ("message".to_owned(), None, String::new());
    for line in block.lines() {
        match line.split_once(": ").or_else(|| line.split_once(':')) {
            Some(("event", text)) => event = text.to_owned(),
            Some(("id", text)) => id = Some(text.to_owned()),
            Some(("data", text)) => data.push_str(text),
            _ => {}
        }
    }
    if data.is_empty() {
        return Ok(None);
    }
    let data = serde_json::from_str(&data).with_context(|| format!("no JSON: {data}"))?;
    Ok(Some(Sse { event, id, data }))
}
