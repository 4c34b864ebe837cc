//! What the members of a batch print, line by line, each with its member's name before it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use bus::{
    ids::{BatchId, JobId},
    output::frame::Stream,
};
use client::{Client, Error, Follow, Item, Wanted, bytes_of};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use model::{BatchView, LogPiece, MemberView};
use serde_json::json;

use super::{follow::BatchFeed, progress::Progress};
use crate::{
    find::members,
    output::{Streams, one_line, print_json},
    run::messages,
};

/// Members whose logs are open at once.
const OPEN: usize = 64;
/// The longest name before a line, in characters.
const NAME_MAX: usize = 32;
/// A line that is longer is printed in pieces, in bytes.
const LINE_MAX: usize = 64 << 10;
/// How often a batch that is over is looked at.
const LOOK: Duration = Duration::from_secs(1);

type Items = BoxStream<'static, (u32, Result<Item, Error>)>;

/// Prints what the members of a batch have printed, one after the other; or, to the end of the batch, what they print as it comes.
///
/// # Errors
/// If the grid refuses, or nobody reads.
pub(crate) async fn logs(client: &Client, batch: &BatchView, wanted: Wanted, as_json: bool) -> anyhow::Result<()> {
    let all = members(client, batch.id, "").await?;
    let mut printer = Printer::new(batch.id, &all, as_json);
    if wanted.to_the_end {
        return as_they_come(client, batch, wanted, &mut printer).await;
    }
    for member in all.iter().filter(|member| member.job.attempt.is_some()) {
        let mut items = items(client, batch.id, member.index, wanted);
        while let Some((index, item)) = items.next().await {
            printer.print(index, item?).await?;
        }
        printer.end(member.index).await?;
    }
    Ok(())
}

async fn as_they_come(client: &Client, batch: &BatchView, wanted: Wanted, printer: &mut Printer) -> anyhow::Result<()> {
    let mut progress = Progress::new(batch.total);
    let mut events = BatchFeed::new(client, batch.id);
    let (mut begun, mut waiting) = (HashSet::new(), VecDeque::new());
    let mut open: SelectAll<Items> = SelectAll::new();
    let mut ticks = tokio::time::interval(LOOK);
    let mut is_over = false;
    while !open.is_empty() || !waiting.is_empty() || !(is_over || progress.is_done()) {
        while open.len() < OPEN
            && let Some(index) = waiting.pop_front()
        {
            open.push(items(client, batch.id, index, wanted));
        }
        tokio::select! {
            told = events.next(), if !is_over && !progress.is_done() => {
                let told = told?;
                waiting.extend(told.claimed().filter(|index| begun.insert(*index)));
                progress.see(told);
            }
            Some((index, item)) = open.next() => {
                let item = item?;
                let ended = matches!(item, Item::End(_) | Item::Stop);
                printer.print(index, item).await?;
                if ended {
                    printer.end(index).await?;
                }
            }
            _ = ticks.tick(), if progress.over && !is_over => {
                let view: Result<BatchView, Error> = client.get(&format!("/v1/batches/{}", batch.id), &()).await;
                is_over = view.is_ok_and(|view| view.state.is_end());
            }
            // The last log has ended.
            else => {}
        }
    }
    Ok(())
}

/// A member's log, until it ends or there is no more.
fn items(client: &Client, batch: BatchId, index: u32, wanted: Wanted) -> Items {
    let follow = Follow::new(client, JobId::of_member(batch, index), wanted, messages::connection_lost);
    stream::unfold(Some(follow), move |follow| async move {
        let mut follow = follow?;
        let item = follow.next().await;
        let goes_on = !matches!(item, Ok(Item::End(_) | Item::Stop) | Err(_));
        Some(((index, item), goes_on.then_some(follow)))
    })
    .boxed()
}

/// Prints whole lines, so that those of two members never mix.
struct Printer {
    batch: BatchId,
    as_json: bool,
    names: HashMap<u32, String>,
    width: usize,
    /// What came of a line that is not at its end.
    begun: HashMap<(u32, Stream), Vec<u8>>,
    streams: Streams,
}

impl Printer {
    fn new(batch: BatchId, members: &[MemberView], as_json: bool) -> Self {
        let names: HashMap<u32, String> = members
            .iter()
            .map(|member| (member.index, one_line(&member.item, NAME_MAX)))
            .collect();
        Self {
            batch,
            as_json,
            width: names.values().map(|name| name.chars().count()).max().unwrap_or_default(),
            names,
            begun: HashMap::new(),
            streams: Streams::new(),
        }
    }

    async fn print(&mut self, index: u32, item: Item) -> anyhow::Result<()> {
        match item {
            Item::Piece(piece) if self.as_json => self.json(index, &piece),
            Item::Piece(piece) => self.lines(index, piece).await,
            Item::Gap(gap) => {
                messages::gap(JobId::of_member(self.batch, index), gap.bytes);
                Ok(())
            }
            Item::Attempt(_) | Item::Waiting(_) | Item::End(_) | Item::Stop => Ok(()),
        }
    }

    fn json(&self, index: u32, piece: &LogPiece) -> anyhow::Result<()> {
        let mut object = serde_json::to_value(piece)?;
        object["job"] = json!(JobId::of_member(self.batch, index));
        object["index"] = json!(index);
        print_json(&object)
    }

    async fn lines(&mut self, index: u32, piece: LogPiece) -> anyhow::Result<()> {
        let stream = piece.stream;
        let mut line = self.begun.remove(&(index, stream)).unwrap_or_default();
        line.extend(bytes_of(piece));
        let whole = match line.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if line.len() > LINE_MAX => line.len(),
            None => 0,
        };
        let rest = line.split_off(whole);
        if !rest.is_empty() {
            self.begun.insert((index, stream), rest);
        }
        self.write(index, stream, &line).await
    }

    /// Prints what is left of lines that never ended.
    async fn end(&mut self, index: u32) -> anyhow::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(line) = self.begun.remove(&(index, stream)) {
                self.write(index, stream, &line).await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self, index: u32, stream: Stream, text: &[u8]) -> anyhow::Result<()> {
        let named = prefixed(self.names.get(&index).map_or("", String::as_str), self.width, text);
        self.streams.write_bytes(stream, &named).await
    }
}

/// Each line with a name before it.
fn prefixed(name: &str, width: usize, text: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(text.len() * 2);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        all.extend(format!("{name:<width$} | ").into_bytes());
        all.extend(line);
        if !line.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_a_name_before_it_and_an_end() {
        assert_eq!(prefixed("ä", 3, b"one\n\ntwo"), "ä   | one\nä   | \nä   | two\n".as_bytes());
        assert_eq!(prefixed("a", 1, b""), b"");
    }
}
