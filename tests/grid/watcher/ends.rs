use anyhow::Result;
use bus::{
    envelope::{Actor, Envelope},
    ids::Attempt,
    job::{AttemptEnd, Command, End, LossCause, Phase, State},
    log::{append::Append, read},
    spec::policy::MAX_LOSSES,
    worker::{Lost, WorkerEvent},
};
use grid_tests::{
    nats::NatsServer,
    writer::{Worker, Writer},
};

use super::{Watching, is_queued, lost, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_ends_the_attempts_of_the_one_before() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let job = writer.submit().await?;
    Worker::register(&writer, "w").await?.claim(job).await?;
    let again = Worker::register(&writer, "w").await?;
    let queued = until(&writer, job, "the job is queued again", is_queued(2)).await?;
    assert_eq!(
        lost(&queued),
        Some(&LossCause::SessionEnded {
            worker: again.id.clone(),
            orderly: false
        })
    );
    again.claim(job).await?;
    again.finish(job, Attempt(2)).await?;
    assert_eq!(writer.job(job).await?.map(|job| job.state()), Some(State::Succeeded));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_leaves_its_attempts() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let job = writer.submit().await?;
    let worker = Worker::register(&writer, "w").await?;
    worker.claim(job).await?;
    worker.leave().await?;
    let job = until(&writer, job, "the job is queued again", is_queued(2)).await?;
    assert_eq!(
        lost(&job),
        Some(&LossCause::SessionEnded {
            worker: worker.id,
            orderly: true
        })
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_loses_its_last_attempt_is_dead() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let job = writer.submit().await?;
    for attempt in 1..MAX_LOSSES {
        Worker::register(&writer, "w").await?.claim(job).await?;
        Worker::register(&writer, "w").await?;
        until(&writer, job, "the job is queued again", is_queued(attempt + 1)).await?;
    }
    let last = Worker::register(&writer, "w").await?;
    last.claim(job).await?;
    Worker::register(&writer, "w").await?;
    let ended = until(&writer, job, "the job is dead", |job| job.state() == State::Dead).await?;
    let cause = LossCause::SessionEnded {
        worker: last.id,
        orderly: false,
    };
    assert_eq!(ended.phase, Phase::Ended(End::Dead(cause)));
    assert_eq!(ended.attempts.len(), 3);
    let history = read::history(&writer.bus.js, job).await?;
    assert_eq!(history.last().and_then(|recorded| recorded.publisher.clone()), Some(Actor::Watcher));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_being_cancelled_ends_with_its_worker() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let job = writer.submit().await?;
    let worker = Worker::register(&writer, "w").await?;
    worker.claim(job).await?;
    let reason = Some("enough".to_owned());
    writer.say(job, &Actor::Api, Command::Cancel { reason: reason.clone() }).await?;
    worker.leave().await?;
    let job = until(&writer, job, "the job is cancelled", |job| job.state() == State::Cancelled).await?;
    assert_eq!(job.cancel_requested.map(|(_, reason)| reason), Some(reason));
    assert_eq!(job.attempts[0].end, Some(AttemptEnd::Cancelled));
    Ok(())
}

/// Killed between its two words: that the worker is lost stands in the log, and what follows from it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_says_what_the_one_before_could_not() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let worker = Worker::register(&writer, "w").await?;
    let mut jobs = Vec::new();
    for _ in 0..100 {
        let job = writer.submit().await?;
        worker.claim(job).await?;
        jobs.push(job);
    }
    let gone = Envelope::new(
        Actor::Watcher,
        WorkerEvent::Lost(Lost {
            session: worker.session,
            last_beat: None,
        }),
    );
    writer.log.append(Append::worker(&worker.id, None, &gone)).await?;
    let first = Watching::start(server.url());
    until(&writer, jobs[20], "some job is queued again", is_queued(2)).await?;
    first.kill().await;
    let _second = Watching::start(server.url());
    for job in jobs {
        until(&writer, job, "the job is queued again", is_queued(2)).await?;
        assert_eq!(
            writer.types(job).await?,
            ["job.submitted.v1", "job.claimed.v1", "job.rescheduled.v1"]
        );
    }
    Ok(())
}
