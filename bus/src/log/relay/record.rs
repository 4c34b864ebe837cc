//! Records messages that cannot be delivered in a stream of their own, for the operator of the grid.

use std::{collections::HashSet, time::Duration};

use async_nats::{
    ConnectOptions, ServerAddr,
    jetstream::{self, context::PublishAckFuture},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Replaced;
use crate::subjects;

/// How long records are collected before they are published.
const GATHER: Duration = Duration::from_millis(200);
/// How many records are published together.
const TOGETHER: usize = 1_000;
/// The time limit for publishing them.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many records are remembered, so that none is published twice.
const REMEMBERED: usize = 16_384;

/// The record of a message that cannot be delivered, on `rgrid.undeliverable.<stream>.<sequence>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeliverable {
    /// When the message was found.
    pub time: DateTime<Utc>,
    /// The stream that contains the message.
    pub stream: String,
    /// The message's sequence in that stream.
    pub sequence: u64,
    /// The message's subject. Bytes that are not UTF-8 are replaced.
    pub subject: String,
    /// Why it cannot be delivered.
    pub reason: String,
}

/// Records replaced messages until their relay ends. Each batch is published over a connection of its own, which receives no messages of
/// other publishers.
pub(in crate::log) async fn record_replaced(
    servers: Vec<ServerAddr>,
    options: impl Fn() -> ConnectOptions,
    mut replaced: mpsc::Receiver<Replaced>,
) {
    let mut recorded = HashSet::new();
    let mut found = Vec::new();
    while replaced.recv_many(&mut found, TOGETHER).await > 0 {
        tokio::time::sleep(GATHER).await;
        while found.len() < TOGETHER
            && let Ok(more) = replaced.try_recv()
        {
            found.push(more);
        }
        if recorded.len() > REMEMBERED {
            recorded.clear();
        }
        let new: Vec<Undeliverable> = found
            .drain(..)
            .filter_map(|message| undeliverable(message, Utc::now()))
            .filter(|message| recorded.insert((message.stream.clone(), message.sequence)))
            .collect();
        let Some(first) = new.first() else { continue };
        warn!(
            "{} messages could not be delivered, and are set aside; the first is {} of {}, on {}: {}",
            new.len(),
            first.sequence,
            first.stream,
            first.subject.escape_debug(),
            first.reason
        );
        let publishing = publish(&servers, options(), &new);
        match tokio::time::timeout(PATIENCE, publishing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("cannot record undeliverable messages: {error}"),
            Err(_) => debug!("cannot record undeliverable messages: no answer"),
        }
    }
}

fn undeliverable(message: Replaced, time: DateTime<Utc>) -> Option<Undeliverable> {
    let (stream, sequence) = message.place?;
    Some(Undeliverable {
        time,
        stream,
        sequence,
        subject: message.subject,
        reason: message.defect.to_string(),
    })
}

async fn publish(
    servers: &[ServerAddr],
    options: ConnectOptions,
    messages: &[Undeliverable],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let js = jetstream::new(options.connect(servers).await?);
    let mut sent: Vec<PublishAckFuture> = Vec::with_capacity(messages.len());
    for message in messages {
        let subject = subjects::undeliverable(&message.stream, message.sequence);
        sent.push(js.publish(subject, serde_json::to_vec(message)?.into()).await?);
    }
    for acknowledged in sent {
        acknowledged.await?;
    }
    Ok(())
}
