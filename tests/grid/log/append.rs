use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Result;
use async_nats::jetstream::message::PublishMessage;
use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId},
    job::{Cancelled, Claimed, Command, JobEvent, Phase, Submitted},
    log::{
        EVENTS,
        append::{Append, Error, Log},
        read, replay,
        room::{Addition, Gauge},
        writer::Outcome,
    },
    worker,
};
use grid_tests::{
    nats::NatsServer,
    writer::{Worker, Writer, namespace, spec},
};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn the_second_claim_loses() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let job = writer.submit().await?;
    let (a, b) = (Worker::register(&writer, "a").await?, Worker::register(&writer, "b").await?);
    let after = writer.job(job).await?.expect("submitted").sequence;
    let claim = |worker: &Worker| {
        JobEvent::Claimed(Claimed {
            attempt: Attempt::FIRST,
            worker: worker.id.clone(),
            session: worker.session,
        })
    };
    writer.append(job, after, &a.actor(), claim(&a)).await?;
    let lost = writer.append(job, after, &b.actor(), claim(&b)).await.expect_err("a was first");
    assert!(
        matches!(lost.downcast_ref(), Some(Error::Conflict { expected, .. }) if *expected == after),
        "{lost:?}"
    );
    let job = writer.job(job).await?.expect("claimed");
    assert_eq!(job.live_attempt().map(|attempt| &attempt.worker), Some(&a.id));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_under_way_while_the_server_restarts_is_stored_once_as_soon_as_it_is_back() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let job = writer.submit().await?;
    let after = writer.job(job).await?.expect("submitted").sequence;
    server.freeze()?;
    let cancelled = Envelope::new(Actor::Api, JobEvent::Cancelled(Cancelled { reason: None }));
    let pending = writer.log.send(Append::job(&namespace(), job, after, &cancelled)).await;
    server.restart().await?;
    let since = Instant::now();
    pending.stored().await?;
    // The client library waits for 5 s for what nobody will say.
    assert!(since.elapsed() < Duration::from_secs(3), "it took {:?}", since.elapsed());
    assert_eq!(writer.types(job).await?, ["job.submitted.v1", "job.cancelled.v1"]);
    Ok(())
}

/// Who reads is told as soon, for it is asked again what the server that is gone did not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_under_way_while_the_server_restarts_is_answered_as_soon_as_it_is_back() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let job = writer.submit().await?;
    let (js, client) = (writer.bus.js.clone(), writer.bus.js.client());
    let statistics = client.statistics();
    let asked = || statistics.out_messages.load(Ordering::Relaxed);
    server.freeze()?;
    let before = asked();
    let tasks = TaskTracker::new();
    let of_a_job = tasks.spawn(async move { read::job(&js, job).await });
    let behind = tasks.spawn(async move { replay::piece(&client, EVENTS, "rgrid.evt.>", 0, 10).await });
    let both = async || Ok((asked() >= before + 2).then_some(()));
    eventually("both are asked", Duration::from_secs(10), both).await?;
    server.restart().await?;
    let since = Instant::now();
    assert!(of_a_job.await??.is_some(), "the job is there");
    assert_eq!(behind.await??.messages.len(), 1);
    assert!(since.elapsed() < Duration::from_secs(3), "it took {:?}", since.elapsed());
    Ok(())
}

/// As where a power cut took the log's last seconds, and the writer remembers them.
#[tokio::test(flavor = "multi_thread")]
async fn who_remembers_more_than_the_log_holds_reads_it_again() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let job = writer.submit().await?;
    let stands = writer.job(job).await?.expect("submitted").sequence;
    let remembered = stands + 1_000;
    let cancelled = JobEvent::Cancelled(Cancelled { reason: None });
    let since = Instant::now();
    let lost = writer
        .append(job, remembered, &Actor::Api, cancelled)
        .await
        .expect_err("the log holds less");
    assert!(
        matches!(lost.downcast_ref(), Some(Error::Conflict { expected, .. }) if *expected == remembered),
        "{lost:?}"
    );
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "it was tried again in vain for {:?}",
        since.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_created_once_by_whoever_is_first() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let id = JobId::of_key(&namespace(), "the key");
    let submitted = || JobEvent::Submitted(Box::new(Submitted { spec: spec() }));
    let (one, other) = tokio::join!(
        writer.append(id, 0, &Actor::Api, submitted()),
        writer.append(id, 0, &Actor::Api, submitted())
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!(writer.types(id).await?, ["job.submitted.v1"]);
    Ok(())
}

/// The acknowledgement of a publish was lost, and the server has forgotten the message id, as after two minutes or by a
/// window that is full. What stands in the log is found by reading past the expected sequence.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_stored_before_is_found_as_our_own() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    forgetful_log(&server).await?;
    let job = writer.submit().await?;
    let worker = Worker::register(&writer, "w").await?;
    let after = writer.job(job).await?.expect("submitted").sequence;
    let event = |name: &Worker| {
        let (attempt, worker, session) = (Attempt::FIRST, name.id.clone(), name.session);
        Envelope::new(name.actor(), JobEvent::Claimed(Claimed { attempt, worker, session }))
    };
    let ours = Append::job(&namespace(), job, after, &event(&worker));
    let stored = writer.log.append(ours.clone()).await?;
    worker.finish(job, Attempt::FIRST).await?;
    let probe = PublishMessage::build().message_id("probe");
    writer
        .bus
        .js
        .send_publish("rgrid.evt.sys.worker.probe", probe.clone())
        .await?
        .await?;
    eventually("the server forgets message ids", Duration::from_secs(10), async || {
        let ack = writer
            .bus
            .js
            .send_publish("rgrid.evt.sys.worker.probe", probe.clone())
            .await?
            .await?;
        Ok((!ack.duplicate).then_some(()))
    })
    .await?;
    assert_eq!(writer.log.append(ours).await?, stored, "our own, although another event follows it");
    let others = Append::job(&namespace(), job, after, &event(&worker));
    let conflict = writer.log.append(others).await;
    assert!(matches!(conflict, Err(Error::Conflict { .. })), "{conflict:?}");
    assert_eq!(writer.types(job).await?, ["job.submitted.v1", "job.claimed.v1", "job.finished.v1"]);
    Ok(())
}

/// The event stream as defined, except that it remembers message ids for the shortest time there is.
async fn forgetful_log(server: &NatsServer) -> Result<()> {
    let context = server.context().await?;
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../nats/streams/RGRID_EVENTS.json"))?;
    let mut definition: Value = serde_json::from_str(&text)?;
    definition["duplicate_window"] = json!(100_000_000);
    definition["max_bytes"] = json!(1 << 30);
    let _deleted: Value = context.request(format!("STREAM.DELETE.{EVENTS}"), &json!({})).await?;
    let made: Value = context.request(format!("STREAM.CREATE.{EVENTS}"), &definition).await?;
    anyhow::ensure!(made.get("error").is_none(), "{made}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_outlives_a_restart_of_the_server() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let job = writer.submit().await?;
    server.kill()?;
    let envelope = Envelope::new(Actor::Api, JobEvent::Submitted(Box::new(Submitted { spec: spec() })));
    let (second, log) = (JobId::new(), writer.log.clone());
    let append = Append::job(&namespace(), second, 0, &envelope);
    let appended = TaskTracker::new().spawn(async move { log.append(append).await });
    server.restart().await?;
    let sequence = appended.await??;
    assert_eq!(writer.job(second).await?.map(|job| job.sequence), Some(sequence));
    assert_eq!(
        writer.types(job).await?,
        ["job.submitted.v1"],
        "what was acknowledged outlives kill -9"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_nobody_acknowledges_is_an_error_in_time() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    server.kill()?;
    let log = Log::new(writer.bus.js.clone(), Duration::from_millis(200));
    let envelope = Envelope::new(Actor::Api, JobEvent::Submitted(Box::new(Submitted { spec: spec() })));
    let error = log.append(Append::job(&namespace(), JobId::new(), 0, &envelope)).await;
    assert!(matches!(error, Err(Error::Unacknowledged { .. })), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_read_back_in_order_from_between_the_others() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let worker = Worker::register(&writer, "w").await?;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(writer.submit().await?);
    }
    for job in &jobs {
        worker.claim(*job).await?;
    }
    for job in jobs.iter().rev() {
        writer.say(*job, &Actor::Api, Command::Cancel { reason: None }).await?;
        worker.finish(*job, Attempt::FIRST).await?;
    }
    for job in jobs {
        let history = read::history(&writer.bus.js, job).await?;
        assert!(history.iter().all(|recorded| recorded.job == job));
        assert!(history.is_sorted_by_key(|recorded| recorded.sequence));
        let types = writer.types(job).await?;
        assert_eq!(
            types,
            ["job.submitted.v1", "job.claimed.v1", "job.cancel_requested.v1", "job.finished.v1"]
        );
        assert!(matches!(writer.job(job).await?.expect("it is there").phase, Phase::Ended(_)));
    }
    assert!(writer.job(JobId::new()).await?.is_none());
    Ok(())
}

/// Many decide on one worker at once: each word is in the log once or changed nothing, and each was decided on what stood before it.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_write_at_once_decide_on_what_the_others_wrote() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let worker = Worker::register(&writer, "w").await?;
    let gauge = Gauge::new(writer.bus.js.clone());
    let writes = bus::log::writer::Writer::new(writer.log.clone(), gauge, Actor::Api, Addition::Jobs);
    let (tasks, mut written) = (TaskTracker::new(), Vec::new());
    for number in 0..8 {
        let (writes, id) = (writes.clone(), worker.id.clone());
        written.push(tasks.spawn(async move {
            // Every other one says the same.
            let reason = Some(format!("reason {}", number / 2));
            writes.write::<worker::Worker>(&id, &worker::Command::Cordon { reason }).await
        }));
    }
    let mut appended = 0;
    for done in written {
        match done.await?? {
            Outcome::Appended(Some(_), _) => appended += 1,
            Outcome::Rejected(Some(_), _, worker::Rejection::Unchanged) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    let history = read::worker(&writer.bus.js, &worker.id).await?;
    let cordons = history.events.iter().filter_map(|(_, event)| match event {
        worker::WorkerEvent::Cordoned(cordoned) => Some(cordoned.reason.clone()),
        _ => None,
    });
    let cordons = cordons.collect::<Vec<_>>();
    assert_eq!(cordons.len(), appended);
    assert!(
        cordons.windows(2).all(|pair| pair[0] != pair[1]),
        "a word that changes nothing is in the log: {cordons:?}"
    );
    let absent = writes
        .write::<worker::Worker>(&"nobody".parse()?, &worker::Command::Uncordon)
        .await?;
    assert!(
        matches!(absent, Outcome::Rejected(None, 0, worker::Rejection::Absent)),
        "{absent:?}"
    );
    Ok(())
}
