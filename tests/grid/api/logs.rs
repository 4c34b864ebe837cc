//! What jobs print, live and afterwards. The runner is played: it cuts frames, publishes them, and commits them.

use anyhow::Result;
use async_nats::jetstream::message::PublishMessage;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bus::{
    envelope::Actor,
    ids::{Attempt, JobId},
    job::{Command, LossCause},
    output::{
        frame::{Frame, Stream},
        manifest::{LogSegment, Manifest},
    },
    subjects,
};
use bytes::{Bytes, BytesMut};
use grid_tests::writer::{Worker, namespace};
use reqwest::{Method, StatusCode, header};
use serde_json::json;

use super::{
    artifacts::finish,
    served::{Events, Served, Sse, problem},
};

/// An attempt that prints.
struct Printer {
    job: JobId,
    attempt: Attempt,
    worker: Worker,
    /// Everything so far, as frames.
    log: BytesMut,
}

impl Printer {
    /// A new job, claimed.
    async fn start(api: &Served) -> Result<Self> {
        let (job, worker) = (api.submit_any().await?, api.worker("w").await?);
        worker.claim(job).await?;
        Ok(Self {
            job,
            attempt: Attempt::FIRST,
            worker,
            log: BytesMut::new(),
        })
    }

    /// Prints, but only into the attempt's own log.
    fn note(&mut self, pieces: &[(Stream, &[u8])]) -> (usize, Bytes) {
        let offset = self.log.len();
        for (stream, bytes) in pieces {
            let frame = Frame {
                stream: *stream,
                time_us: 1_700_000_000_000_000,
                bytes: Bytes::copy_from_slice(bytes),
            };
            frame.write(&mut self.log);
        }
        (offset, Bytes::copy_from_slice(&self.log[offset..]))
    }

    /// Prints, and publishes it.
    async fn print(&mut self, api: &Served, pieces: &[(Stream, &[u8])]) -> Result<()> {
        let (offset, frames) = self.note(pieces);
        self.publish(api, offset, frames, false).await
    }

    async fn publish(&self, api: &Served, offset: usize, frames: Bytes, last: bool) -> Result<()> {
        let mut message = PublishMessage::build()
            .header("Rgrid-Offset", offset.to_string().as_str())
            .payload(frames);
        if last {
            message = message.header("Rgrid-Log", "end");
        }
        let subject = subjects::log(&namespace(), self.job, self.attempt);
        api.writer.bus.js.send_publish(subject, message).await?.await?;
        Ok(())
    }

    /// Commits all of it, in two segments that are cut at a frame.
    async fn commit(&self, api: &Served) -> Result<()> {
        let mut manifest = Manifest::default();
        let mut frames = self.log.clone().freeze();
        let first = Frame::read(&mut frames)?.map_or(0, |_| self.log.len() - frames.len());
        for segment in [&self.log[..first], &self.log[first..]] {
            let sha256 = api.files().await?.put_bytes(Bytes::copy_from_slice(segment)).await?;
            manifest.log.push(LogSegment {
                sha256,
                size: segment.len() as u64,
            });
        }
        finish(api, &self.worker, self.job, self.attempt, &manifest).await
    }

    fn path(&self, query: &str) -> String {
        format!("/v1/jobs/{}/logs{query}", self.job)
    }
}

async fn events(api: &Served, path: &str, after: Option<&str>) -> Result<Events> {
    let mut request = api.request(Method::GET, path).header(header::ACCEPT, "text/event-stream");
    if let Some(id) = after {
        request = request.header("Last-Event-ID", id);
    }
    Events::new(request.send().await?)
}

fn bytes_of(event: &Sse) -> Vec<u8> {
    match (event.data["text"].as_str(), event.data["base64"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(coded)) => BASE64_STANDARD.decode(coded).expect("base64"),
        _ => panic!("{event:?}"),
    }
}

/// The bytes of one stream.
fn printed(events: &[Sse], stream: &str) -> Vec<u8> {
    let of_it = events.iter().filter(|event| event.event == "log" && event.data["stream"] == stream);
    of_it.flat_map(bytes_of).collect()
}

#[tokio::test]
async fn output_comes_while_it_is_printed_and_the_end_with_the_job() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    printer.print(&api, &[(Stream::Stdout, b"before\n")]).await?;
    let mut log = events(&api, &printer.path("?follow=true"), None).await?;
    assert_eq!(
        (log.must().await?.event, log.must().await?.data["text"].clone()),
        ("attempt".to_owned(), json!("before\n"))
    );
    printer
        .print(&api, &[(Stream::Stderr, b"oops\n"), (Stream::Stdout, b"after\n")])
        .await?;
    let (one, two) = (log.must().await?, log.must().await?);
    assert_eq!([&one.data["stream"], &one.data["text"]], [&json!("stderr"), &json!("oops\n")]);
    assert_eq!([&two.data["stream"], &two.data["text"]], [&json!("stdout"), &json!("after\n")]);
    assert_eq!(two.data["time_us"], 1_700_000_000_000_000_u64);
    printer.publish(&api, printer.log.len(), Bytes::new(), true).await?;
    printer.commit(&api).await?;
    let end = log.must().await?;
    assert_eq!(
        (end.event.as_str(), &end.data["state"], &end.data["id"]),
        ("end", &json!("succeeded"), &json!(printer.job))
    );
    assert_eq!(log.next().await?, None);
    Ok(())
}

#[tokio::test]
async fn what_the_stream_does_not_have_any_more_comes_from_the_store() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    // Neither of these was ever in the stream, and the last one is.
    printer.note(&[(Stream::Stdout, b"1\n")]);
    printer.note(&[(Stream::Stderr, b"2\n"), (Stream::Stdout, b"3\n")]);
    printer.print(&api, &[(Stream::Stdout, b"4\n")]).await?;
    let live = events(&api, &printer.path(""), None).await?.rest().await?;
    let kinds: Vec<&str> = live.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["attempt", "gap", "log", "end"]);
    assert_eq!(
        (live[1].data["bytes"].as_u64(), &live[3].data["state"]),
        (Some(45), &json!("claimed"))
    );
    printer.commit(&api).await?;
    let after = events(&api, &printer.path("?follow=true"), None).await?.rest().await?;
    assert_eq!(printed(&after, "stdout"), b"1\n3\n4\n");
    assert_eq!(printed(&after, "stderr"), b"2\n");
    assert_eq!(api.get(&printer.path("")).await?.text().await?, "1\n2\n3\n4\n");
    assert_eq!(api.get(&printer.path("?stream=stderr&follow=true")).await?.text().await?, "2\n");
    let only = events(&api, &printer.path("?stream=stdout"), None).await?.rest().await?;
    assert_eq!(
        (printed(&only, "stdout"), printed(&only, "stderr")),
        (b"1\n3\n4\n".to_vec(), Vec::new())
    );
    Ok(())
}

#[tokio::test]
async fn the_switch_from_the_stream_to_the_store_loses_and_doubles_nothing() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    printer.print(&api, &[(Stream::Stdout, b"seen\n")]).await?;
    let mut log = events(&api, &printer.path("?follow=true"), None).await?;
    log.must().await?;
    assert_eq!(log.must().await?.data["text"], "seen\n");
    // The rest never comes by the stream: the runner's connection is cut, and then the job is committed.
    printer.note(&[(Stream::Stdout, b"not seen\n"), (Stream::Stdout, b"either\n")]);
    printer.commit(&api).await?;
    let rest = log.rest().await?;
    assert_eq!(printed(&rest, "stdout"), b"not seen\neither\n");
    assert_eq!(rest.last().map(|event| event.event.as_str()), Some("end"));
    Ok(())
}

#[tokio::test]
async fn any_bytes_can_be_had_back_exactly_and_from_every_place() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    let text = "naïve €uro 🦀 end".as_bytes();
    let mut stdout = Vec::new();
    // Cut in the middle of every character, with binary and another stream between.
    for piece in text.chunks(1) {
        printer
            .print(&api, &[(Stream::Stdout, piece), (Stream::Stderr, b"\xf0\x9f")])
            .await?;
        stdout.extend_from_slice(piece);
    }
    let binary: Vec<u8> = (0..=255).collect();
    printer
        .print(&api, &[(Stream::Stdout, &binary), (Stream::Stdout, b"tail \xe2\x82")])
        .await?;
    stdout.extend_from_slice(&binary);
    stdout.extend_from_slice(b"tail \xe2\x82");
    let stderr = b"\xf0\x9f".repeat(text.len());
    for committed in [false, true] {
        if committed {
            printer.commit(&api).await?;
        }
        let all = events(&api, &printer.path(""), None).await?.rest().await?;
        assert_eq!(printed(&all, "stdout"), stdout, "committed: {committed}");
        assert_eq!(printed(&all, "stderr"), stderr);
        let texts = all.iter().filter_map(|event| event.data["text"].as_str()).collect::<String>();
        assert!(texts.contains("🦀") && texts.contains('€'), "{texts}");
        for (place, event) in all.iter().enumerate() {
            let Some(id) = &event.id else { continue };
            let rest = events(&api, &printer.path(""), Some(id)).await?.rest().await?;
            for (stream, whole) in [("stdout", &stdout), ("stderr", &stderr)] {
                let both = [printed(&all[..=place], stream), printed(&rest, stream)].concat();
                assert!(both == *whole, "after {id}, committed: {committed}, {stream}");
            }
        }
        let one = api.get(&printer.path("?stream=stdout")).await?.bytes().await?;
        assert_eq!(one, stdout);
    }
    let bad = api
        .request(Method::GET, &printer.path(""))
        .header(header::ACCEPT, "text/event-stream")
        .header("Last-Event-ID", "x");
    assert!(problem(bad.send().await?, StatusCode::BAD_REQUEST).await?.contains("Last-Event-ID"));
    Ok(())
}

#[tokio::test]
async fn a_follower_goes_on_with_the_next_attempt_and_never_mixes_two() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    let mut log = events(&api, &printer.path("?follow=true"), None).await?;
    assert_eq!(log.must().await?.data["attempt"], 1);
    printer.print(&api, &[(Stream::Stdout, b"first\n")]).await?;
    assert_eq!(log.must().await?.data["text"], "first\n");
    // What was printed last, and not yet read, is not lost with the worker.
    printer.print(&api, &[(Stream::Stdout, b"last words\n")]).await?;
    let cause = LossCause::WorkerLost {
        worker: printer.worker.id.clone(),
    };
    let give_up = Command::GiveUp {
        attempt: Attempt::FIRST,
        cause,
    };
    api.writer.say(printer.job, &Actor::Watcher, give_up).await?;
    assert_eq!(log.must().await?.data["text"], "last words\n");
    printer.worker.claim(printer.job).await?;
    let mut second = Printer {
        attempt: Attempt(2),
        log: BytesMut::new(),
        ..printer
    };
    let begun = log.must().await?;
    assert_eq!((begun.event.as_str(), &begun.data["attempt"]), ("attempt", &json!(2)));
    second.print(&api, &[(Stream::Stdout, b"second\n")]).await?;
    assert_eq!(log.must().await?.data["text"], "second\n");
    second.commit(&api).await?;
    assert_eq!(log.must().await?.event, "end");
    // Each has its own log, and the last one is the job's.
    assert_eq!(api.get(&second.path("?attempt=1")).await?.text().await?, "first\nlast words\n");
    assert_eq!(api.get(&second.path("?attempt=2")).await?.text().await?, "second\n");
    assert_eq!(api.get(&second.path("")).await?.text().await?, "second\n");
    let detail = problem(api.get(&second.path("?attempt=3")).await?, StatusCode::NOT_FOUND).await?;
    assert!(detail.contains("no attempt 3"), "{detail}");
    Ok(())
}

#[tokio::test]
async fn what_was_given_back_is_passed_over_by_who_wants_the_bytes() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    let give_back = |attempt| Command::Return {
        interrupted: false,
        attempt: Attempt(attempt),
        session: printer.worker.session,
    };
    let (job, path) = (printer.job, printer.path("?follow=true"));
    // Begun while the attempt is live that comes to nothing.
    let plain = api.get(&path).await?;
    let mut log = events(&api, &path, None).await?;
    assert_eq!(log.must().await?.data["attempt"], 1);
    api.writer.say(job, &printer.worker.actor(), give_back(1)).await?;
    assert_eq!(log.must().await?.event, "waiting");
    api.writer.say(job, &Actor::Watcher, Command::Release).await?;
    printer.worker.claim(job).await?;
    assert_eq!(log.must().await?.data["attempt"], 2);
    printer.attempt = Attempt(2);
    printer.print(&api, &[(Stream::Stdout, b"it ran\n")]).await?;
    printer.commit(&api).await?;
    assert_eq!(plain.text().await?, "it ran\n");
    Ok(())
}

#[tokio::test]
async fn a_log_is_followed_from_before_the_first_attempt_and_ends_with_a_cancel() -> Result<()> {
    let api = Served::start().await?;
    let job = api.submit_any().await?;
    let path = format!("/v1/jobs/{job}/logs?follow=true");
    assert_eq!(api.get(&format!("/v1/jobs/{job}/logs")).await?.text().await?, "");
    let mut log = events(&api, &path, None).await?;
    let plain = api.get(&path).await?;
    api.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await?;
    let end = log.must().await?;
    assert_eq!((end.event.as_str(), &end.data["state"]), ("end", &json!("cancelled")));
    assert_eq!(log.next().await?, None);
    assert_eq!(plain.text().await?, "");
    Ok(())
}

#[tokio::test]
async fn a_large_log_comes_whole() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    let line = format!("{}\n", "x".repeat(65_535));
    for _ in 0..320 {
        printer.note(&[(Stream::Stdout, line.as_bytes())]);
    }
    printer.commit(&api).await?;
    let whole = api.get(&printer.path("")).await?.bytes().await?;
    assert_eq!(whole.len(), 320 * 65_536);
    let mut log = events(&api, &printer.path("?follow=true"), None).await?;
    let mut length = 0;
    while let Some(event) = log.next().await? {
        length += event.data["text"].as_str().map_or(0, str::len);
    }
    assert_eq!(length, 320 * 65_536);
    Ok(())
}

#[tokio::test]
async fn a_log_that_cannot_be_read_whole_is_not_taken_for_whole() -> Result<()> {
    let api = Served::start().await?;
    let mut printer = Printer::start(&api).await?;
    printer.note(&[(Stream::Stdout, b"here\n")]);
    printer.note(&[(Stream::Stdout, b"lost\n")]);
    printer.commit(&api).await?;
    // Somebody deletes the second segment from the store.
    let segment = bus::ids::Digest::of(&printer.log[18..]).to_string();
    let stored = walk(&api.dir().join("store")).into_iter().find(|path| path.ends_with(&segment));
    std::fs::remove_file(stored.expect("the segment"))?;
    let log = events(&api, &printer.path(""), None).await?.rest().await?;
    let kinds: Vec<&str> = log.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["attempt", "log", "error"]);
    assert!(
        log[2].data["detail"].as_str().is_some_and(|text| text.contains(&segment)),
        "{log:?}"
    );
    let plain: Result<Bytes, _> = api.get(&printer.path("")).await?.bytes().await;
    assert!(plain.is_err(), "half a log came as if it were whole");
    Ok(())
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            if entry.path().is_dir() {
                walk(&entry.path())
            } else {
                vec![entry.path()]
            }
        })
        .collect()
}
