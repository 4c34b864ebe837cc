//! What the log takes, by what the server says of it.

use anyhow::{Context as _, Result, ensure};
use bus::log::usage::{LEAST_BOUND, events_after, set_bound, usage};
use chrono::TimeDelta;
use grid_tests::{nats::NatsServer, writer::Writer};

#[tokio::test]
async fn the_events_after_a_moment_are_counted_by_a_few_of_them() -> Result<()> {
    let nats = NatsServer::start().await?;
    let writer = Writer::connect(nats.url()).await?;
    let js = &writer.bus.js;
    let empty = usage(js).await?;
    assert_eq!(
        (empty.events, empty.first_at, events_after(js, &empty, chrono::Utc::now()).await?),
        (0, None, 0)
    );
    let mut moments = Vec::new();
    for _ in 0..20 {
        writer.submit().await?;
        moments.push(usage(js).await?.last_at.context("stored")?);
    }
    let full = usage(js).await?;
    for (place, moment) in moments.iter().enumerate() {
        assert_eq!(events_after(js, &full, *moment).await?, 19 - place as u64, "{place}");
    }
    assert_eq!(events_after(js, &full, moments[0] - TimeDelta::days(1)).await?, 20);
    Ok(())
}

#[tokio::test]
async fn a_bound_changes_nothing_else_of_the_stream() -> Result<()> {
    let nats = NatsServer::start().await?;
    let writer = Writer::connect(nats.url()).await?;
    let js = &writer.bus.js;
    let config = async || anyhow::Ok(js.get_stream(bus::log::EVENTS).await?.cached_info().config.clone());
    let before = config().await?;
    set_bound(js, LEAST_BOUND).await?;
    let after = config().await?;
    assert_eq!(after.max_bytes, i64::try_from(LEAST_BOUND)?);
    let rest = async_nats::jetstream::stream::Config {
        max_bytes: before.max_bytes,
        ..after
    };
    ensure!(rest == before, "{rest:?} was {before:?}");
    bus::log::setup::streams(js, 1).await?;
    Ok(())
}
