//! The supervisor's loop: carries out what [`supervise`](super::supervise) decides, and tells it what happens.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use rustix::process::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    disk::{self, Disk, Turn},
    launch::{Launcher, describe},
    logs,
    part::Part,
    process::{Identity, Process},
    record::{PartRecord, PartState, Phase, UpRecord},
    report::{Message, Report},
    supervise::{Action, Epoch, Event, State, Supervisor},
};

/// How long a grid may take to come up, `initdb` on a slow disk included.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How often the sizes of the logs are checked, so that none grows without bound.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

/// What a task tells the loop.
#[derive(Debug)]
enum Happened {
    Started(Part, Identity, DateTime<Utc>, u64),
    NotReady(Part, String),
    Ready(Part),
    Ended(Part, String),
    Due(Part, Epoch),
    /// SIGTERM or SIGHUP: `rgrid down`, which several may say at once, a service manager, a closed terminal.
    Stop,
    /// SIGINT: a person at the terminal, who means it when they say it twice.
    Interrupt,
    Overdue,
}

/// What is known of a part's process, beyond what it is doing.
#[derive(Debug, Default)]
struct Seen {
    identity: Option<Identity>,
    process: Option<Process>,
    since: Option<DateTime<Utc>>,
    last_end: Option<String>,
    /// What it answered last, if that was not that it is ready.
    not_ready: Option<String>,
    log_from: u64,
    cancel: CancellationToken,
}

struct Run {
    launcher: Arc<Launcher>,
    report: Report,
    supervisor: Supervisor,
    seen: BTreeMap<Part, Seen>,
    up: UpRecord,
    failure: Option<String>,
    was_up: bool,
    /// Whether what is left is being killed because somebody said so.
    killing: bool,
    disk: Disk,
    tasks: JoinSet<()>,
    tell: mpsc::UnboundedSender<Happened>,
}

/// Brings the grid up, keeps it up, and takes it down when it is asked to end. Returns when nothing of it runs any more.
///
/// # Errors
/// If it could not be brought up.
pub(super) async fn run(launcher: Launcher, report: Report, up: UpRecord) -> (Report, anyhow::Result<()>) {
    // Unbounded, but for each part at most one start, one end and a few timers are under way.
    let (tell, mut told) = mpsc::unbounded_channel();
    let (supervisor, actions) = Supervisor::begin(Instant::now());
    let seen = Part::ALL.into_iter().map(|part| (part, Seen::default())).collect();
    let launcher = Arc::new(launcher);
    let mut run = Run {
        launcher,
        report,
        supervisor,
        seen,
        up,
        failure: None,
        was_up: false,
        killing: false,
        disk: Disk::default(),
        tasks: JoinSet::new(),
        tell,
    };
    run.listen();
    let mut housekeeping = interval(HOUSEKEEPING);
    let mut looks = interval(disk::PERIOD);
    let mut done = run.carry_out(actions);
    while !done {
        let happened = tokio::select! {
            happened = told.recv() => happened,
            _ = housekeeping.tick() => {
                run.bound_logs();
                continue;
            }
            _ = looks.tick() => {
                run.look_at_disk();
                continue;
            }
        };
        while run.tasks.try_join_next().is_some() {}
        let Some(event) = happened.and_then(|happened| run.take_in(happened)) else {
            continue;
        };
        let actions = run.supervisor.step(Instant::now(), rand::random(), event);
        done = run.carry_out(actions);
        run.write_records();
    }
    run.tasks.abort_all();
    run.up.phase = Phase::Ended;
    run.write_up();
    let result = run.failure.take().map_or(Ok(()), |failure| Err(anyhow!(failure)));
    (run.report, result)
}

impl Run {
    /// Listens for the signals that end the grid, and for the end of the time that it may take to come up.
    fn listen(&mut self) {
        self.tell_on(SignalKind::terminate(), || Happened::Stop);
        self.tell_on(SignalKind::hangup(), || Happened::Stop);
        self.tell_on(SignalKind::interrupt(), || Happened::Interrupt);
        let tell = self.tell.clone();
        self.tasks.spawn(async move {
            sleep(START_PATIENCE).await;
            let _ = tell.send(Happened::Overdue);
        });
    }

    fn tell_on(&mut self, kind: SignalKind, what: fn() -> Happened) {
        let tell = self.tell.clone();
        match signal(kind) {
            Ok(mut signals) => drop(self.tasks.spawn(async move {
                while signals.recv().await.is_some() {
                    let _ = tell.send(what());
                }
            })),
            Err(error) => self.report.say(&format!("cannot listen for signals: {error}")),
        }
    }

    /// Notes what happened, says what is worth saying, and returns what the supervisor must decide on.
    fn take_in(&mut self, happened: Happened) -> Option<Event> {
        match happened {
            Happened::Started(part, identity, since, log_from) => {
                let seen = self.seen.entry(part).or_default();
                seen.process = identity.open();
                // Asked to end before it was known here: that signal went nowhere.
                if let (State::Stopping(rung), Some(process)) = (self.supervisor.state(part), &seen.process)
                    && let Some((signal, _)) = part.stop_ladder().get(rung)
                {
                    process.signal(*signal);
                }
                seen.identity = Some(identity);
                (seen.since, seen.log_from) = (Some(since), log_from);
                self.write_records();
                None
            }
            Happened::NotReady(part, reason) => {
                self.seen.entry(part).or_default().not_ready = Some(reason);
                None
            }
            Happened::Ready(part) => {
                if self.was_up && self.supervisor.state(part) == State::Starting {
                    self.report.say(&format!("{part} is up again"));
                }
                Some(Event::Ready(part))
            }
            Happened::Ended(part, how) => {
                let seen = self.seen.entry(part).or_default();
                (seen.process, seen.identity, seen.since) = (None, None, None);
                seen.last_end = Some(how);
                Some(Event::Ended(part))
            }
            Happened::Due(part, epoch) => Some(Event::Due(part, epoch)),
            Happened::Interrupt if self.supervisor.is_stopping() => {
                self.killing = true;
                self.report.say("killing the remaining processes");
                Some(Event::Kill)
            }
            Happened::Stop | Happened::Interrupt => {
                if !self.supervisor.is_stopping() {
                    let hint = if self.report.is_attended() {
                        "; Ctrl-C again kills the remaining processes"
                    } else {
                        ""
                    };
                    self.report.say(&format!("going down{hint}"));
                }
                Some(Event::Stop)
            }
            Happened::Overdue if self.was_up || self.supervisor.is_stopping() => None,
            Happened::Overdue => {
                self.failure = Some(self.why_late());
                Some(Event::Stop)
            }
        }
    }

    /// Which parts are not ready, and what they answered.
    fn why_late(&self) -> String {
        let late = self
            .seen
            .iter()
            .filter(|(part, _)| self.supervisor.state(**part) == State::Starting);
        let late = late.map(|(part, seen)| format!("{part} is not ready ({})", seen.not_ready.as_deref().unwrap_or("it was not asked")));
        let (late, log) = (late.collect::<Vec<_>>().join(", "), self.launcher.dir.up_log());
        format!(
            "the grid was not up after {} s: {late}; see {} and the logs beside it",
            START_PATIENCE.as_secs(),
            log.display()
        )
    }

    /// Carries out actions; says whether the grid has ended.
    fn carry_out(&mut self, actions: Vec<Action>) -> bool {
        for action in actions {
            match action {
                Action::Start(part) => self.start(part),
                Action::Wake(part, epoch, after) => self.wake(part, epoch, after),
                Action::Signal(part, signal) => {
                    let seen = self.seen.entry(part).or_default();
                    match &seen.process {
                        Some(process) => process.signal(signal),
                        None => seen.cancel.cancel(),
                    }
                    if matches!(self.supervisor.state(part), State::Stopping(rung) if rung > 0) && !self.up.killed.contains(&part) {
                        if !self.killing {
                            self.report.say(&format!("{part} does not end; killing it"));
                        }
                        self.up.killed.push(part);
                    }
                }
                Action::Up => {
                    self.was_up = true;
                    self.up.phase = Phase::Up;
                    self.write_up();
                    self.write_records();
                    let hint = if self.report.is_attended() { "; stop it with Ctrl-C" } else { "" };
                    self.report
                        .say(&format!("the grid is up: {}{hint}", self.launcher.grid.api_address()));
                    self.report.conclude(&Message::Up);
                }
                Action::GiveUp(part) => {
                    let failure = format!("{part} does not start: {}", self.why_ended(part));
                    self.failure = Some(failure);
                }
                Action::Done => return true,
            }
        }
        if self.supervisor.is_stopping() && self.up.phase != Phase::Stopping {
            self.up.phase = Phase::Stopping;
            self.write_up();
        }
        false
    }

    fn start(&mut self, part: Part) {
        let cancel = CancellationToken::new();
        self.seen.entry(part).or_default().cancel = cancel.clone();
        let (launcher, tell) = (Arc::clone(&self.launcher), self.tell.clone());
        self.tasks.spawn(async move {
            let how = match cancel.run_until_cancelled(launcher.start(part)).await {
                None => "stopped before it ran".to_owned(),
                Some(Err(error)) => format!("{error:#}"),
                Some(Ok(started)) => {
                    let mut child = started.child;
                    let pid = child.id().unwrap_or_default();
                    if let Some(identity) = Identity::of(pid) {
                        let _ = tell.send(Happened::Started(part, identity, started.since, started.log_from));
                    }
                    let ready = async {
                        launcher
                            .ready(part, started.since, |reason| drop(tell.send(Happened::NotReady(part, reason))))
                            .await;
                        let _ = tell.send(Happened::Ready(part));
                        std::future::pending::<String>().await
                    };
                    tokio::select! {
                        ended = child.wait() => ended.map_or_else(|error| format!("unknown: {error}"), describe),
                        never = ready => never,
                    }
                }
            };
            let _ = tell.send(Happened::Ended(part, how));
        });
    }

    fn wake(&mut self, part: Part, epoch: Epoch, after: Duration) {
        if self.supervisor.state(part) == State::BackOff {
            let again = format!(
                "{part} ended: {}; starting it again in {:.1} s",
                self.why_ended(part),
                after.as_secs_f64()
            );
            self.report.say(&again);
        }
        let tell = self.tell.clone();
        self.tasks.spawn(async move {
            sleep(after).await;
            let _ = tell.send(Happened::Due(part, epoch));
        });
    }

    /// How a part ended last, what it said last, and where the rest stands.
    fn why_ended(&self, part: Part) -> String {
        let log = self.launcher.dir.log(part);
        let seen = self.seen.get(&part);
        let how = seen.and_then(|seen| seen.last_end.as_deref()).unwrap_or("unknown");
        let said = seen.and_then(|seen| logs::last_line(&log, seen.log_from));
        said.map_or_else(|| how.to_owned(), |said| format!("{how}: `{said}`; see {}", log.display()))
    }

    fn write_records(&mut self) {
        for (part, seen) in &self.seen {
            let state = match self.supervisor.state(*part) {
                State::Waiting | State::Starting => PartState::Starting,
                State::Running => PartState::Running,
                State::BackOff => PartState::Restarting,
                State::Stopping(_) => PartState::Stopping,
                State::Stopped => PartState::Stopped,
            };
            let record = PartRecord {
                part: *part,
                state,
                process: seen.identity.clone(),
                since: seen.since,
                restarts: self.supervisor.restarts(*part),
                port: self.launcher.grid.port(*part),
                last_end: seen.last_end.clone(),
            };
            if let Err(error) = self.launcher.dir.write_part(&record) {
                self.report.say(&format!("{error:#}"));
            }
        }
    }

    fn write_up(&mut self) {
        if let Err(error) = self.launcher.dir.write_up(&self.up) {
            self.report.say(&format!("{error:#}"));
        }
    }

    /// Starts nats-server again after its disk was full.
    fn look_at_disk(&mut self) {
        let root = self.launcher.dir.root();
        let Ok(free) = disk::free(root) else { return };
        match self.disk.look(free) {
            Some(Turn::Full) => {
                let text = format!(
                    "the disk of {} is full: the grid accepts nothing until there is free space again",
                    root.display()
                );
                self.report.say(&text);
            }
            Some(Turn::Room) => {
                self.report.say("the disk has free space again; restarting nats-server");
                if let (State::Running, Some(process)) = (
                    self.supervisor.state(Part::Nats),
                    self.seen.get(&Part::Nats).and_then(|seen| seen.process.as_ref()),
                ) {
                    process.signal(Signal::TERM);
                }
            }
            None => {}
        }
    }

    fn bound_logs(&mut self) {
        let paths = Part::ALL
            .map(|part| self.launcher.dir.log(part))
            .into_iter()
            .chain([self.launcher.dir.up_log()]);
        for path in paths {
            if let Err(error) = logs::bound(&path) {
                self.report.say(&format!("cannot shorten {}: {error}", path.display()));
            }
        }
    }
}
