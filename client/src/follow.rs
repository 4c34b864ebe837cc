//! Follows a job's output to its end, and reconnects after broken connections.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bus::{
    ids::{Attempt, JobId},
    output::frame::Stream,
};
use model::{JobView, LogAttempt, LogGap, LogPiece};
use serde::de::DeserializeOwned;

use super::{
    Client, Error, Events,
    events::{Broken, Event},
};

/// The pause before the first new connection; doubled each time.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(3);

/// An item of a job's log.
#[derive(Debug)]
pub enum Item {
    /// A piece of one stream.
    Piece(LogPiece),
    /// What follows is of this attempt.
    Attempt(LogAttempt),
    /// Something of it is not there any more.
    Gap(LogGap),
    /// Nothing comes until the job, which is held or pauses after a failure, is ready.
    Waiting(Box<JobView>),
    /// The job ended.
    End(Box<JobView>),
    /// There is no more until now, and the log is not followed.
    Stop,
}

/// The bytes of a piece, exactly as they were printed.
pub fn bytes_of(piece: LogPiece) -> Vec<u8> {
    match (piece.text, piece.base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(coded)) => BASE64_STANDARD.decode(coded).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}

/// What part of a log is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Of this attempt alone; absent: of all that are made.
    pub attempt: Option<Attempt>,
    /// From the first attempt on, and not from the last.
    pub from_first: bool,
    /// Of this stream alone.
    pub stream: Option<Stream>,
    /// Not only what there is until now, but also what is to come.
    pub to_the_end: bool,
}

/// Follows a job's log.
pub struct Follow {
    client: Client,
    path: String,
    query: Vec<(&'static str, String)>,
    to_the_end: bool,
    events: Option<Events>,
    last_id: Option<String>,
    attempt: Option<Attempt>,
    /// The job's event that it was last said to wait since.
    waiting: u64,
    failures: u32,
    on_loss: fn(&Error),
}

impl Follow {
    /// Follows a job's log from its beginning. `on_loss` is told once each time that the connection is lost for longer.
    pub fn new(client: &Client, job: JobId, wanted: Wanted, on_loss: fn(&Error)) -> Self {
        let mut query = vec![("follow", wanted.to_the_end.to_string())];
        query.extend(wanted.attempt.map(|attempt| ("attempt", attempt.to_string())));
        query.extend(wanted.from_first.then(|| ("from", Attempt::FIRST.to_string())));
        query.extend(wanted.stream.map(|stream| ("stream", stream_name(stream).to_owned())));
        Self {
            client: client.clone(),
            path: format!("/v1/jobs/{job}/logs"),
            query,
            to_the_end: wanted.to_the_end,
            events: None,
            last_id: None,
            attempt: None,
            waiting: 0,
            failures: 0,
            on_loss,
        }
    }

    /// What comes next. Waits for it as long as it takes, over every outage.
    ///
    /// # Errors
    /// If the API refuses for good: a wrong key, no such job.
    pub async fn next(&mut self) -> Result<Item, Error> {
        loop {
            let Some(events) = self.events.as_mut() else {
                self.connect().await?;
                continue;
            };
            let event = match events.next().await {
                Ok(Some(event)) => event,
                Ok(None) if !self.to_the_end => return Ok(Item::Stop),
                Ok(None) | Err(Broken) => {
                    self.events = None;
                    continue;
                }
            };
            if event.name == "error" {
                // The log cannot be read further just now, or at all; what came before it counts.
                let error = Error::Problem(self.parse(&event.data)?);
                if self.to_the_end && error.may_pass() {
                    self.events = None;
                    continue;
                }
                return Err(error);
            }
            if event.name != "attempt" {
                self.failures = 0;
            }
            if let Some(id) = events.last_id().filter(|id| Some(*id) != self.last_id.as_deref()) {
                self.last_id = Some(id.to_owned());
            }
            if let Some(item) = self.read(&event)? {
                return Ok(item);
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        if self.failures > 0 {
            let doublings = (self.failures - 1).min(8);
            tokio::time::sleep(BACK_OFF_MIN.saturating_mul(1 << doublings).min(BACK_OFF_MAX)).await;
        }
        self.failures += 1;
        match Events::open(&self.client, &self.path, &self.query, self.last_id.as_deref()).await {
            Ok(events) => self.events = Some(events),
            Err(error) if error.may_pass() => {
                // About a second after the loss: a restarted API is back by then.
                if self.failures == 4 {
                    (self.on_loss)(&error);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read(&mut self, event: &Event) -> Result<Option<Item>, Error> {
        Ok(match event.name.as_str() {
            "log" => Some(Item::Piece(self.parse(&event.data)?)),
            "attempt" => {
                let begun: LogAttempt = self.parse(&event.data)?;
                // It may be said again after a reconnect.
                (self.attempt.replace(begun.attempt) != Some(begun.attempt)).then_some(Item::Attempt(begun))
            }
            "waiting" => {
                let job: Box<JobView> = self.parse(&event.data)?;
                // As above.
                (std::mem::replace(&mut self.waiting, job.sequence) != job.sequence).then_some(Item::Waiting(job))
            }
            "gap" => Some(Item::Gap(self.parse(&event.data)?)),
            "end" => Some(Item::End(Box::new(self.parse(&event.data)?))),
            _ => None,
        })
    }

    fn parse<T: DeserializeOwned>(&self, data: &str) -> Result<T, Error> {
        serde_json::from_str(data).map_err(|source| Error::Answer {
            url: self.client.url().to_owned(),
            status: 200,
            source,
        })
    }
}

/// A stream as the API spells it.
const fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}
