use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::jetstream::stream;
use bus::log::{
    EQUIPMENT, EVENTS, UNDELIVERABLE,
    connect::{self, Bus},
    setup,
};
use grid_tests::{
    nats::NatsServer,
    writer::{Worker, Writer},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_util::task::TaskTracker;

use super::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_made_once_and_checked_after() -> Result<()> {
    let server = NatsServer::start().await?;
    let context = server.context().await?;
    setup::streams(&context, 1).await?;
    setup::streams(&context, 1).await?;
    let (one, other) = tokio::join!(setup::streams(&context, 1), setup::streams(&context, 1));
    one.and(other)?;
    setup::work_consumers(&context, &bus::ids::default_token()).await?;
    setup::work_consumers(&context, &bus::ids::default_token()).await?;
    setup::intake_consumer(&context).await?;
    setup::intake_consumer(&context).await?;
    Ok(())
}

/// What a server may store is shared out so that every stream fits: the log takes what the others leave.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_store_is_small_the_log_is_what_gives_way() -> Result<()> {
    // More than the log is to have, and less than all streams together; and less than the log alone.
    for max_store in [18_u64 << 30, 5 << 30] {
        let server = NatsServer::start_with_store(max_store).await?;
        let js = server.context().await?;
        setup::streams(&js, 1).await?;
        let log = js.get_stream(EVENTS).await?;
        let bound = u64::try_from(log.cached_info().config.max_bytes)?;
        ensure!((1 << 30..16 << 30).contains(&bound), "{bound} of {max_store}");
        setup::streams(&js, 1).await?;
    }
    Ok(())
}

/// An upgrade may bring a stream for which a full server has no room: the grid starts all the same where it can do without.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_grid_can_do_without_keeps_none_from_starting() -> Result<()> {
    let server = NatsServer::start_with_store(24 << 30).await?;
    let js = server.context().await?;
    setup::streams(&js, 1).await?;
    for stream in [EQUIPMENT, UNDELIVERABLE] {
        js.delete_stream(stream).await?;
    }
    // All that is left is reserved, piece by piece.
    let (mut piece, mut number) = (8_i64 << 30, 0);
    while piece > 1 << 20 {
        let reserving = stream::Config {
            name: format!("FULL-{number}"),
            subjects: vec![format!("full.{number}")],
            max_bytes: piece,
            ..stream::Config::default()
        };
        match js.create_stream(reserving).await {
            Ok(_) => number += 1,
            Err(_) => piece /= 2,
        }
    }
    setup::streams(&js, 1).await?;
    for stream in [EQUIPMENT, UNDELIVERABLE] {
        ensure!(js.get_stream(stream).await.is_err(), "there was no room for {stream}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_that_start_at_once_make_the_streams_together() -> Result<()> {
    let server = NatsServer::start().await?;
    let (one, other) = (server.context().await?, server.context().await?);
    let (one, other) = tokio::join!(setup::streams(&one, 1), setup::streams(&other, 1));
    one.and(other)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_another_one_is_an_error_that_names_the_field() -> Result<()> {
    let server = NatsServer::start().await?;
    let context = server.context().await?;
    let other =
        json!({ "name": "RGRID_LOGS", "subjects": ["rgrid.log.>"], "discard": "new", "max_bytes": 1_000_000, "allow_direct": true });
    let made: Value = context.request("STREAM.CREATE.RGRID_LOGS", &other).await?;
    anyhow::ensure!(made.get("error").is_none(), "{made}");
    let error = setup::streams(&context, 1).await.expect_err("it keeps what is old");
    let setup::Error::Mismatch { stream, field, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((stream.as_str(), field.as_str()), ("RGRID_LOGS", "discard"));
    assert!(error.to_string().contains("`discard` is \"new\" and must be \"old\""), "{error}");
    Ok(())
}

/// What `nats stream add --config` sends is the file; in pedantic mode the server refuses what it would have to change.
#[tokio::test(flavor = "multi_thread")]
async fn the_definitions_can_be_sent_as_they_are() -> Result<()> {
    let server = NatsServer::start().await?;
    let context = server.context().await?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../nats/streams"))? {
        let mut definition: Value = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        let name = definition["name"].as_str().expect("a name").to_owned();
        definition["pedantic"] = json!(true);
        // The disk of a test machine may be smaller than the bound.
        definition["max_bytes"] = json!(64 << 20);
        let made: Value = context.request(format!("STREAM.CREATE.{name}"), &definition).await?;
        assert!(made.get("error").is_none(), "{name}: {made}");
        names.push(name);
    }
    names.sort();
    let all = [
        "RGRID_EQUIPMENT",
        "RGRID_EVENTS",
        "RGRID_HEARTBEATS",
        "RGRID_INBOX",
        "RGRID_LOGS",
        "RGRID_MARKS",
        "RGRID_PRESENCE",
        "RGRID_REFUSED",
        "RGRID_SECRETS",
        "RGRID_UNDELIVERABLE",
    ];
    assert_eq!(names, all);
    setup::streams(&context, 1).await?;
    Ok(())
}

/// A grid that was made before there were batches is given what they need at its next start, and keeps what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_earlier_version_learns_to_take_batches() -> Result<()> {
    let server = NatsServer::start().await?;
    let context = server.context().await?;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../nats/streams/RGRID_EVENTS.json");
    let mut definition: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    definition["max_bytes"] = json!(64 << 20);
    definition.as_object_mut().expect("an object").remove("allow_atomic");
    let made: Value = context.request("STREAM.CREATE.RGRID_EVENTS", &definition).await?;
    assert!(made.get("error").is_none(), "{made}");
    let writer = Writer::connect(server.url()).await?;
    let info: Value = context.request("STREAM.INFO.RGRID_EVENTS", &json!({})).await?;
    assert_eq!(info["config"]["allow_atomic"], json!(true), "{info}");
    assert_eq!(info["config"]["max_bytes"], json!(64 << 20), "what the operator chose stays");
    writer.submit().await?;
    Ok(())
}

/// Each heartbeat has a time to live, and the stream that keeps their history allows none: the server takes them all the same.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_kept_as_history_although_they_expire() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let worker = Worker::register(&writer, "w").await?;
    let stored = async |stream: &str| -> Result<u64> {
        let info: Value = writer.bus.js.request(format!("STREAM.INFO.{stream}"), &json!({})).await?;
        Ok(info["state"]["messages"].as_u64().unwrap_or(0))
    };
    for beat in 1..=3 {
        worker.beat(beat, &[]).await?;
        // One that is replaced before the history reads it is not in there; at one a second, none is.
        eventually("a heartbeat becomes history", Duration::from_secs(10), async || {
            Ok((stored("RGRID_HEARTBEATS").await? == beat).then_some(()))
        })
        .await?;
    }
    assert_eq!(stored("RGRID_PRESENCE").await?, 1, "only the last one is present");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_will_not_do_is_refused_with_the_reason() -> Result<()> {
    let old = pretend(json!({ "version": "2.14.4", "jetstream": true })).await?;
    let error = Bus::connect(&old, "test").await.expect_err("too old");
    assert!(
        matches!(&error, connect::Error::TooOld { found, .. } if found == "2.14.4"),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("needs 2.14.5 or newer") && text.contains("https://"), "{text}");
    let bare = pretend(json!({ "version": "2.15.1" })).await?;
    let error = Bus::connect(&bare, "test").await.expect_err("no JetStream");
    assert!(matches!(error, connect::Error::NoJetStream { .. }), "{error:?}");
    Ok(())
}

/// A server that says this of itself, and answers a ping.
async fn pretend(mut info: Value) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    info["server_id"] = json!("pretended");
    info["max_payload"] = json!(1 << 20);
    info["proto"] = json!(1);
    info["headers"] = json!(true);
    // Ends with the test's runtime.
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (read, mut write) = stream.split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(format!("INFO {info}\r\n").as_bytes()).await?;
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("PING") {
                    write.write_all(b"PONG\r\n").await?;
                }
            }
        }
        anyhow::Ok(())
    });
    Ok(format!("nats://{address}"))
}
