//! What a supervisor says: to its log always, and to the process that waits for it.

use std::{
    fs::File,
    io::{self, Write as _},
};

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// What a detached supervisor tells the process that started it, one JSON line each on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// Something to show while waiting.
    Progress(String),
    /// The grid is up.
    Up,
    /// It could not be brought up, and nothing of it runs.
    Failed(String),
    /// Another supervisor was faster.
    AlreadyUp,
}

/// Who else listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// A person at the terminal: lines on standard error.
    Terminal,
    /// The process that started a detached supervisor, until the grid is up.
    Starter,
    /// Nobody.
    None,
}

/// Says what happens.
#[derive(Debug)]
pub(super) struct Report {
    audience: Audience,
    log: File,
}

impl Report {
    pub(super) fn new(audience: Audience, log: File) -> Self {
        Self { audience, log }
    }

    /// Says one line to the log alone. What cannot be written (a full disk) must not end the grid.
    pub(super) fn say_to_log(&mut self, line: &str) {
        let _ = writeln!(self.log, "{} {line}", Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
    }

    /// Writes one line to the log, and sends it to the process that waits.
    pub(super) fn say(&mut self, line: &str) {
        self.say_to_log(line);
        match self.audience {
            Audience::Terminal => drop(writeln!(io::stderr(), "rgrid up: {line}")),
            Audience::Starter => self.tell(&Message::Progress(line.to_owned())),
            Audience::None => {}
        }
    }

    /// Tells the starter how it went, and lets go of it.
    pub(super) fn conclude(&mut self, message: &Message) {
        if self.audience == Audience::Starter {
            self.tell(message);
            self.audience = Audience::None;
            // The starter reads to the end of the pipe; a supervisor that lives on must not hold it.
            if let Ok(null) = File::options().write(true).open("/dev/null") {
                let _ = rustix::stdio::dup2_stdout(null);
            }
        }
    }

    pub(super) fn is_attended(&self) -> bool {
        self.audience == Audience::Terminal
    }

    fn tell(&self, message: &Message) {
        if let Ok(line) = serde_json::to_string(message) {
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}
