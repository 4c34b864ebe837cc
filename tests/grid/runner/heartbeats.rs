//! Nothing that a job chooses delays a heartbeat: each of these had the runner's loop busy for seconds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    grid::secrets::{Key, Sealed, seal},
    ids::{Token, WorkerId},
    job::{Outcome, State},
    log::secrets,
    spec::{ExecutorKind, InputFile, JobSpec, tree::Tree},
    subjects,
};
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use store::{Files, StoreUrl};

use super::{LONG, Service, Yard, outcome, shell};
use crate::log::eventually;

/// A worker with work counts as lost after 4 s without a beat, of which it sends one a second.
const LARGEST_GAP: Duration = Duration::from_millis(2500);

/// The beats of the worker `w`, as they come.
struct Listener(Arc<Mutex<Vec<Instant>>>);

impl Listener {
    async fn of(yard: &Yard) -> Result<Self> {
        let worker: WorkerId = "w".parse()?;
        let mut beats = yard.writer.bus.js.client().subscribe(subjects::beat(&worker)).await?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&heard);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move {
            while beats.next().await.is_some() {
                list.lock().push(Instant::now());
            }
        });
        Ok(Self(heard))
    }

    async fn first(&self) -> Result<()> {
        eventually("the worker beats", LONG, async || Ok((!self.0.lock().is_empty()).then_some(()))).await
    }

    /// The largest gap since then, that before the first heartbeat and that since the last one included.
    fn largest_gap(&self, since: Instant) -> Duration {
        let heard = self.0.lock().clone();
        let begins = [since].into_iter().chain(heard.into_iter().filter(|at| *at > since));
        let begins = begins.collect::<Vec<_>>();
        let ends = begins.iter().skip(1).copied().chain([Instant::now()]);
        begins.iter().zip(ends).map(|(begin, end)| end - *begin).max().unwrap_or_default()
    }
}

impl Yard {
    /// Waits until a hostile job has ended, however, in its first attempt; meanwhile the worker was heard.
    async fn holds_up_nobody(&self, listener: &Listener, what: &str, spec: JobSpec) -> Result<Outcome> {
        let submitted = Instant::now();
        let id = self.submit(spec).await?;
        let job = self.ended(id).await?;
        let gap = listener.largest_gap(submitted);
        ensure!(gap < LARGEST_GAP, "{what}: {gap:?} without a heartbeat");
        ensure!(
            self.writer
                .types(id)
                .await?
                .iter()
                .filter(|kind| **kind == "job.claimed.v1")
                .count()
                == 1,
            "{what}"
        );
        ensure!(job.state() != State::Dead, "{what}: {:?}", job.phase);
        outcome(&job).cloned()
    }

    async fn secret(&self, key: &Key, name: &str, value: &str) -> Result<Token> {
        let (namespace, name) = (grid_tests::writer::namespace(), name.parse::<Token>()?);
        let sealed = seal(&key.public(), &namespace, &name, value)?;
        secrets::put(
            &self.writer.bus.js,
            &namespace,
            &name,
            &Sealed {
                sealed,
                set_at: chrono::Utc::now(),
                set_by: None,
            },
        )
        .await?;
        Ok(name)
    }

    async fn files(&self) -> Result<Files> {
        let store: StoreUrl = "nats://rgrid-files".parse()?;
        Ok(Files::open(&store, Some(self.writer.bus.js.clone())).await?)
    }
}

fn runner(yard: &Yard, key: &Key) -> Result<Service> {
    let file = yard.path("grid.key");
    std::fs::write(&file, key.to_text())?;
    let file = file.to_str().context("a name in UTF-8")?.to_owned();
    yard.runner(&["--secrets-key-file", &file, "--executor", "auto"])
}

fn by(executor: ExecutorKind, script: &str) -> JobSpec {
    JobSpec {
        executor: Some(executor),
        image: (executor == ExecutorKind::Docker).then(|| "rgrid/python:3".to_owned()),
        ..shell(script)
    }
}

async fn secrets_are_searched_for_in_time(executor: ExecutorKind) -> Result<()> {
    let (yard, key) = (Yard::start().await?, Key::generate());
    let _runner = runner(&yard, &key)?;
    let listener = Listener::of(&yard).await?;
    listener.first().await?;
    let letter = yard.secret(&key, "letter", &"a".repeat(64 << 10)).await?;
    let growing: String = (4..350).map(|length| "a".repeat(length) + "\n").collect();
    let growing = yard.secret(&key, "growing", &growing).await?;
    let repeated = "for i in 1 2 3 4 5 6 7 8; do head -c 65000 /dev/zero | tr '\\0' a; echo; done";
    for (what, name, script) in [
        ("one repeated letter", &letter, repeated),
        (
            "letter by letter",
            &letter,
            "i=0; while [ $i -lt 20000 ]; do printf a; i=$((i+1)); done",
        ),
        ("lines that begin each other", &growing, repeated),
    ] {
        let mut spec = by(executor, script);
        spec.secrets.insert("SECRET".to_owned(), name.clone());
        let outcome = yard.holds_up_nobody(&listener, what, spec).await?;
        ensure!(outcome == Outcome::Succeeded, "{what}: {outcome:?}");
    }
    let mut many = by(executor, "head -c 1000000 /dev/zero | tr '\\0' a");
    for at in 0..100 {
        let name = yard
            .secret(&key, &format!("many-{at}"), &format!("{at}{}", "a".repeat(60 << 10)))
            .await?;
        many.secrets.insert(format!("SECRET_{at}"), name);
    }
    let outcome = yard.holds_up_nobody(&listener, "six megabytes of secrets", many).await?;
    let Outcome::Error { message, .. } = outcome else {
        anyhow::bail!("{outcome:?}")
    };
    ensure!(message.contains("longer than 512 KiB together"), "{message}");
    Ok(())
}

// What the test itself computes must not hold up its listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn secrets_hold_up_no_heartbeat_of_a_runner_of_processes() -> Result<()> {
    secrets_are_searched_for_in_time(ExecutorKind::Process).await
}

// What the test itself computes must not hold up its listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn secrets_hold_up_no_heartbeat_of_a_runner_of_containers() -> Result<()> {
    secrets_are_searched_for_in_time(ExecutorKind::Docker).await
}

// What the test itself computes must not hold up its listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn long_lists_of_inputs_hold_up_no_heartbeat() -> Result<()> {
    let (yard, key) = (Yard::start().await?, Key::generate());
    let _runner = runner(&yard, &key)?;
    let (listener, files) = (Listener::of(&yard).await?, yard.files().await?);
    listener.first().await?;
    // 18 MB of directories, each of a name of its own below another. All of a list (64 MB) takes too long on a busy machine to be made here.
    let long = "d".repeat(200);
    let dirs = (0..30_000).map(|at| format!("{long}{}/{long}{at}/{long}", at / 1000).parse());
    let content = files.put_bytes(Bytes::from_static(b"the same")).await?;
    let tree = Tree {
        dirs: dirs.collect::<Result<_, _>>()?,
        ..Tree::default()
    };
    let many = Tree {
        files: (0..3000)
            .map(|at| {
                Ok(InputFile {
                    path: format!("many/{at}").parse()?,
                    sha256: content,
                    size: 8,
                    executable: false,
                    mode: None,
                    modified_ms: None,
                })
            })
            .collect::<Result<_>>()?,
        ..Tree::default()
    };
    for (what, tree) in [("18 MB of directories", tree), ("3000 inputs", many)] {
        let (json, reference) = tree.to_json();
        files.put_bytes(json.into()).await?;
        let mut spec = shell("exit 0");
        spec.tree = Some(reference);
        spec.outputs = Some(Vec::new());
        let outcome = yard.holds_up_nobody(&listener, what, spec).await?;
        ensure!(outcome == Outcome::Succeeded, "{what}: {outcome:?}");
    }
    Ok(())
}

// What the test itself computes must not hold up its listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn outputs_hold_up_no_heartbeat() -> Result<()> {
    let (yard, key) = (Yard::start().await?, Key::generate());
    let _runner = runner(&yard, &key)?;
    let listener = Listener::of(&yard).await?;
    listener.first().await?;
    let cases = [
        ("a million short lines", "seq 1000000", None),
        ("a flood", "head -c 300000000 /dev/zero", None),
        ("100000 names", "seq 100000 | xargs touch", Some(vec!["none/*".to_owned()])),
        ("30000 directories", "seq 30000 | xargs mkdir", None),
        (
            "long names",
            "n=$(printf %0240d 0); for i in $(seq 15); do mkdir $n && cd $n; done; seq 2000 | xargs touch",
            Some(vec!["none/*".to_owned()]),
        ),
        ("links", "seq 2000 | xargs -I{} ln -s nowhere {}", None),
    ];
    for (what, script, outputs) in cases {
        let spec = JobSpec { outputs, ..shell(script) };
        let outcome = yard.holds_up_nobody(&listener, what, spec).await?;
        ensure!(outcome == Outcome::Succeeded, "{what}: {outcome:?}");
    }
    Ok(())
}
