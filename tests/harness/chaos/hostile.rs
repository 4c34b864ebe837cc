//! What hostile users do to a grid: messages that nobody can read, jobs that mean harm, timers by the thousand, and a machine that
//! has no CPU to spare.

use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use bus::{
    ids::{JobId, WorkerId, default_token},
    spec::Class,
    subjects,
};
use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    check::{Kind, Verdict},
    outcome,
    rig::Rig,
};
use crate::poison;

/// Queue of jobs that no worker serves.
const NOWHERE: &str = "nowhere";
/// Jobs that are handed in together.
const TOGETHER: usize = 1_000;

/// Scripts that mean harm to the runner that runs them: a deep tree, a flood of output, many files, a hole of 3 TB, processes that
/// leave their session and environment behind, and a name as long as names may be.
pub const SCRIPTS: [&str; 6] = [
    "python3 -c 'import os\nfor _ in range(5000): os.mkdir(\"d\"); os.chdir(\"d\")'",
    "yes | head -c 30000000",
    "seq 20000 | xargs touch",
    "truncate -s 3T hole",
    "for _ in 1 2 3 4 5; do setsid env -i sleep 600 & done",
    "touch \"$(printf 'x%.0s' $(seq 255))\"",
];

/// Programs that take all the CPU there is, until they are dropped.
#[derive(Debug)]
pub struct Pressure(Vec<Child>);

impl Pressure {
    /// Starts so many busy loops.
    ///
    /// # Errors
    /// If there is no shell.
    pub fn start(loops: usize) -> Result<Self> {
        let mut running = Self(Vec::new());
        for _ in 0..loops {
            // Bounded, should we be killed.
            let mut command = Command::new("timeout");
            command.args(["300", "sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
            running.0.push(command.spawn()?);
        }
        Ok(running)
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // `timeout` passes SIGTERM on to what it runs.
            let pid = rustix::process::Pid::from_child(child);
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ended = child.wait();
        }
    }
}

/// Publishes messages that no client library can take to the inbox, and where the log tells of jobs and of these workers. Returns
/// how many of them are in the log.
///
/// # Errors
/// If the server cannot be reached.
pub async fn poison(rig: &Rig, runners: u8) -> Result<usize> {
    let mut in_log = Vec::new();
    for number in 1..=runners {
        in_log.push(subjects::worker(&format!("worker-{number}").parse::<WorkerId>()?));
        in_log.push(subjects::job_ready(&default_token(), JobId::new(), &default_token(), Class::ALL[0]));
    }
    let inbox = subjects::submit(&default_token(), &default_token());
    let messages = poison::HEADERS.iter().copied().flat_map(|header| {
        let subjects = in_log.iter().chain([&inbox]);
        subjects.map(move |subject| (subject.clone().into_bytes(), header))
    });
    poison::publish(&rig.nats_url(), messages).await?;
    Ok(in_log.len() * poison::HEADERS.len())
}

/// Of what cannot be read in the log, so many messages were poisoned; anything else that cannot be read is a broken promise.
pub fn forgive_poison(verdict: &mut Verdict, published: usize) {
    let unreadable = verdict.violations.iter().filter(|broken| broken.kind == Kind::Unreadable).count();
    verdict.violations.retain(|broken| broken.kind != Kind::Unreadable);
    if unreadable != published {
        let what = format!("{unreadable} messages of the log cannot be read, and {published} of them were poisoned");
        verdict.add(8, Kind::Unreadable, None, what);
    }
}

/// Submits so many jobs that all become ready at one moment, on a queue that no worker serves.
///
/// # Errors
/// If the API refuses one.
pub async fn timers(rig: &Rig, how_many: usize, at: DateTime<Utc>) -> Result<()> {
    let submission = json!({ "command": ["true"], "queue": NOWHERE, "start": { "at": at } });
    for first in (0..how_many).step_by(TOGETHER) {
        let submissions = vec![&submission; TOGETHER.min(how_many - first)];
        rig.door().submit(&json!(submissions)).await?;
    }
    Ok(())
}

/// Cancels every job of [`timers`].
///
/// # Errors
/// If the API does not answer, or cannot cancel one.
pub async fn cancel_timers(rig: &Rig) -> Result<()> {
    outcome::caught_up(rig).await?;
    let mut before = String::new();
    loop {
        let page = rig
            .post(&format!("cancel?queue={NOWHERE}&limit={TOGETHER}{before}"), &json!({}))
            .await?;
        ensure!(page["left"].as_array().is_none_or(Vec::is_empty), "{page}");
        let Some(next) = page["next"].as_i64() else { return Ok(()) };
        before = format!("&before={next}");
    }
}
