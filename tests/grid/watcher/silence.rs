use std::time::{Duration, Instant};

use anyhow::Result;
use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId},
    job::{Finished, JobEvent, LossCause, Outcome, Phase, Rejection, Usage, decide},
    log::{append::Append, read},
    worker::{Lost, WorkerEvent},
};
use grid_tests::{
    nats::NatsServer,
    writer::{Worker, Writer, namespace},
};

use super::{Beating, Watching, is_queued, losses, lost, until, until_lost, worker_events};

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_workers_jobs_are_rescheduled_within_five_seconds_and_its_late_word_is_refused() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let watching = Watching::start(server.url());
    let healthy = Beating::start(server.url(), "healthy").await?;
    let (kept, moved) = (writer.submit().await?, writer.submit().await?);
    healthy.claim(kept).await?;
    let silent = Worker::register(&writer, "silent").await?;
    let claim = silent.claim(moved).await?;
    silent.beat(claim, &[(moved, Attempt::FIRST)]).await?;
    let since = Instant::now();

    let job = until(&writer, moved, "the job is queued again", is_queued(2)).await?;
    let took = since.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(lost(&job), Some(&LossCause::WorkerLost { worker: silent.id.clone() }));
    assert_eq!(
        writer.types(moved).await?,
        ["job.submitted.v1", "job.claimed.v1", "job.rescheduled.v1"]
    );
    let history = read::history(&writer.bus.js, moved).await?;
    let gone = worker_events(&writer)
        .await?
        .into_iter()
        .find(|(_, event)| matches!(event.event, WorkerEvent::Lost(_)));
    let (worker, gone) = gone.expect("it was said that the worker is lost");
    assert_eq!((worker, gone.actor.clone()), (silent.id.clone(), Actor::Watcher));
    let WorkerEvent::Lost(Lost { session, last_beat }) = gone.event else {
        unreachable!()
    };
    assert!(session == silent.session && last_beat.is_some());
    assert_eq!(history[2].envelope.causation_id, Some(gone.id));
    assert_eq!(history[2].envelope.correlation_id, Some(history[0].envelope.id));

    let refused = decide(Some(&job), silent.finish_command(Attempt::FIRST));
    assert_eq!(refused, Err(Rejection::Stale { attempt: Attempt::FIRST }));
    say_it_anyway(&writer, &silent, moved, job.sequence).await?;
    let job = writer.job(moved).await?.expect("it is there");
    assert!(is_queued(2)(&job) && job.finished().is_none(), "{job:?}");
    assert!(matches!(writer.job(kept).await?.expect("there").phase, Phase::Claimed { .. }));
    watching.stop().await
}

/// A runner that does not look before it speaks.
async fn say_it_anyway(writer: &Writer, worker: &Worker, job: JobId, after: u64) -> Result<()> {
    let finished = JobEvent::Finished(Box::new(Finished {
        attempt: Attempt::FIRST,
        session: worker.session,
        outcome: Outcome::Succeeded,
        manifest: None,
        usage: Usage::default(),
        retry_after_ms: None,
    }));
    writer.append(job, after, &worker.actor(), finished).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_registered_and_never_beat_is_lost_too() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let job = writer.submit().await?;
    let silent = Worker::register(&writer, "silent").await?;
    silent.claim(job).await?;
    let _watching = Watching::hasty(server.url());
    until(&writer, job, "the job is queued again", is_queued(2)).await?;
    Ok(())
}

/// A claim of a session that nobody registered: of no program that this one knows, and silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_out_of_nowhere_is_given_up() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::hasty(server.url());
    let job = writer.submit().await?;
    let mut stranger = Worker::register(&writer, "stranger").await?;
    stranger.leave().await?;
    stranger.session = bus::ids::SessionId::new();
    stranger.claim(job).await?;
    let job = until(&writer, job, "the job is queued again", is_queued(2)).await?;
    assert_eq!(lost(&job), Some(&LossCause::WorkerLost { worker: stranger.id }));
    assert!(losses(&writer).await?.is_empty(), "there was no worker to lose");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_its_live_worker_no_longer_lists_is_an_orphan() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let forgetful = Beating::start(server.url(), "forgetful").await?;
    let job = writer.submit().await?;
    forgetful.claim(job).await?;
    forgetful.forget();
    let since = Instant::now();
    let job = until(&writer, job, "the job is queued again", is_queued(2)).await?;
    assert!(since.elapsed() > Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(
        lost(&job),
        Some(&LossCause::Orphaned {
            worker: forgetful.worker.id.clone()
        })
    );
    assert!(losses(&writer).await?.is_empty());
    Ok(())
}

/// Heartbeats that were sent before the claim was known to be stored say nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_claimed_after_the_heartbeat_is_no_orphan() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let (slow, forgetful) = (
        Beating::start(server.url(), "slow").await?,
        Beating::start(server.url(), "forgetful").await?,
    );
    let (early, orphan) = (writer.submit().await?, writer.submit().await?);
    // Its heartbeats go on to name no claim at all.
    slow.worker.claim(early).await?;
    forgetful.claim(orphan).await?;
    forgetful.forget();
    until(
        &writer,
        orphan,
        "the orphan, forgotten at the same time, is queued again",
        is_queued(2),
    )
    .await?;
    assert!(matches!(writer.job(early).await?.expect("there").phase, Phase::Claimed { .. }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_watchers_say_it_once() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = [
        Watching::hasty(server.url()),
        Watching::hasty(server.url()),
        Watching::hasty(server.url()),
    ];
    let silent = Worker::register(&writer, "silent").await?;
    let mut jobs = Vec::new();
    for _ in 0..50 {
        let job = writer.submit().await?;
        silent.claim(job).await?;
        jobs.push(job);
    }
    for job in &jobs {
        until(&writer, *job, "the job is queued again", is_queued(2)).await?;
    }
    // A second word about any of them would have come before this one's.
    let next = Worker::register(&writer, "next").await?;
    let last = writer.submit().await?;
    next.claim(last).await?;
    next.leave().await?;
    until(&writer, last, "the last job is queued again", is_queued(2)).await?;
    for job in jobs {
        assert_eq!(
            writer.types(job).await?,
            ["job.submitted.v1", "job.claimed.v1", "job.rescheduled.v1"]
        );
    }
    assert_eq!(losses(&writer).await?.into_values().sum::<usize>(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_stops_nothing() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let rubbish = [
        (format!("rgrid.evt.default.job.{}.by.w-x", JobId::new()), "{"),
        (
            format!("rgrid.evt.default.job.{}.by.w-x", JobId::new()),
            r#"{"type":"job.paused.v7","data":{}}"#,
        ),
        (
            format!("rgrid.evt.default.job.{}.by.w-x", JobId::new()),
            r#"{"type":"job.claimed.v1","data":{}}"#,
        ),
        ("rgrid.evt.sys.worker.x".to_owned(), r#"{"type":"worker.registered.v9"}"#),
        ("rgrid.evt.sys.worker.x.y.z".to_owned(), "?"),
        ("rgrid.evt.default.batch.x".to_owned(), "?"),
        ("rgrid.hb.x".to_owned(), "?"),
    ];
    for (subject, payload) in rubbish {
        writer.bus.js.publish(subject, payload.into()).await?.await?;
    }
    let watching = Watching::hasty(server.url());
    let silent = Worker::register(&writer, "silent").await?;
    writer.bus.js.publish("rgrid.hb.silent", "not a heartbeat".into()).await?.await?;
    until_lost(&writer, &silent).await?;
    watching.stop().await
}

/// Whoever is declared lost is: what it claims after that is taken from it, although it beats again.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_given_up_gets_no_job_to_keep() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let back = Beating::start(server.url(), "back").await?;
    let gone = Envelope::new(
        Actor::Watcher,
        WorkerEvent::Lost(Lost {
            session: back.worker.session,
            last_beat: None,
        }),
    );
    writer.log.append(Append::worker(&back.worker.id, None, &gone)).await?;
    let job = writer.submit().await?;
    back.claim(job).await?;
    until(&writer, job, "the job is queued again", is_queued(2)).await?;
    let command = back.worker.claim_command(Attempt(2));
    writer.say(job, &back.worker.actor(), command).await?;
    until(&writer, job, "and again", is_queued(3)).await?;
    assert_eq!(writer.job(job).await?.expect("there").namespace, namespace());
    Ok(())
}
