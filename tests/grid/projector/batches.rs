//! Random events of batches, and what the table must say of them.

use anyhow::Result;
use bus::{
    batch::{
        Batch, BatchAdvanced, BatchCancelled, BatchEvent, BatchMember, BatchSealed, BatchStopped, BatchSubmitted, Command, Phase, Recorded,
        decide,
    },
    envelope::{Actor, Envelope},
    ids::{BatchId, Digest},
    subjects,
};
use chrono::{DateTime, SubsecRound as _, Utc};
use grid_tests::writer::namespace;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use sqlx::FromRow;
use uuid::Uuid;

/// What is said of a few batches.
pub(super) struct Batches {
    known: Vec<(BatchId, Option<Batch>)>,
}

impl Batches {
    pub(super) fn new() -> Self {
        Self {
            known: (0..4).map(|_| (BatchId::new(), None)).collect(),
        }
    }

    /// A place in one of them.
    pub(super) fn member(&self, dice: &mut StdRng) -> Option<BatchMember> {
        let (batch, _) = self.known.choose(dice)?;
        Some(BatchMember {
            batch: *batch,
            index: dice.random_range(0..50),
            item: "data/ä.csv".to_owned(),
            of: None,
        })
    }

    /// An event, most of them possible, and the subject that it is said on.
    pub(super) fn next(&mut self, dice: &mut StdRng) -> (String, Envelope<BatchEvent>) {
        let which = dice.random_range(0..self.known.len());
        let (id, batch) = &mut self.known[which];
        let command = command(dice);
        let event = match decide(batch.as_ref(), command.clone()) {
            Ok(event) => event,
            Err(_) => as_said(command),
        };
        let envelope = Envelope::new(Actor::Api, event);
        *batch = Batch::evolve(
            batch.take(),
            &Recorded {
                namespace: namespace(),
                batch: *id,
                sequence: 1,
                envelope: envelope.clone(),
            },
        );
        let subject = subjects::batch(&namespace(), *id);
        // Others are begun now and then.
        if dice.random_bool(0.1) {
            self.known[which] = (BatchId::new(), None);
        }
        (subject, envelope)
    }
}

fn command(dice: &mut StdRng) -> Command {
    match dice.random_range(0..10) {
        0..3 => Command::Submit(BatchSubmitted {
            name: "dätä/*.csv".to_owned(),
            total: dice.random_range(1..100),
            parallel: dice.random_bool(0.5).then_some(3),
            max_failures: dice.random_bool(0.3).then_some(2),
            fail_fast: dice.random_bool(0.3),
            retry_of: dice.random_bool(0.3).then(BatchId::new),
            sha256: Digest::of(b"what was handed in"),
        }),
        3..6 => Command::Seal,
        6..8 => Command::Advance { released: vec![0, 1] },
        8 => Command::Stop { failures: 2 },
        _ => Command::Cancel {
            reason: dice.random_bool(0.5).then(|| "enough".to_owned()),
        },
    }
}

/// What a command comes to where nobody decides.
fn as_said(command: Command) -> BatchEvent {
    match command {
        Command::Submit(submitted) => BatchEvent::Submitted(submitted),
        Command::Seal => BatchEvent::Sealed(BatchSealed {}),
        Command::Advance { released } => BatchEvent::Advanced(BatchAdvanced { released }),
        Command::Stop { failures } => BatchEvent::Stopped(BatchStopped { failures }),
        Command::Cancel { reason } => BatchEvent::Cancelled(BatchCancelled { reason }),
    }
}

/// A row of the table.
#[derive(Debug, FromRow)]
pub(super) struct BatchRow {
    id: Uuid,
    namespace: String,
    submitted_sequence: i64,
    name: String,
    total: i32,
    parallel: Option<i32>,
    max_failures: Option<i32>,
    fail_fast: bool,
    retry_of: Option<Uuid>,
    submitted_at: DateTime<Utc>,
    sealed_at: Option<DateTime<Utc>>,
    stopped_at: Option<DateTime<Utc>>,
    cancelled_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
}

impl BatchRow {
    /// What it says, in words that can be compared.
    pub(super) fn says(&self) -> String {
        let phase = if self.cancelled_at.is_some() {
            Phase::Cancelled {
                reason: self.cancel_reason.clone(),
            }
        } else if self.stopped_at.is_some() {
            Phase::Stopped
        } else if self.sealed_at.is_some() {
            Phase::Sealed
        } else {
            Phase::Submitting
        };
        let limits = (self.parallel, self.max_failures, self.fail_fast, self.retry_of);
        let begins = (&self.namespace, self.submitted_sequence, self.submitted_at);
        format!("{} {:?} {} {limits:?} {begins:?} {phase:?}", self.id, self.name, self.total)
    }
}

/// What the table must say of a batch.
pub(super) fn wanted(batch: &Batch) -> Result<String> {
    let BatchSubmitted {
        name,
        total,
        parallel,
        max_failures,
        fail_fast,
        retry_of,
        ..
    } = &batch.submitted;
    let row = BatchRow {
        id: batch.id.uuid(),
        namespace: batch.namespace.to_string(),
        submitted_sequence: batch.first_sequence.cast_signed(),
        name: name.clone(),
        total: i32::try_from(*total)?,
        parallel: parallel.map(i32::try_from).transpose()?,
        max_failures: max_failures.map(i32::try_from).transpose()?,
        fail_fast: *fail_fast,
        retry_of: retry_of.map(BatchId::uuid),
        submitted_at: batch.submitted_at.trunc_subsecs(6),
        sealed_at: (batch.phase == Phase::Sealed).then_some(batch.submitted_at),
        stopped_at: (batch.phase == Phase::Stopped).then_some(batch.submitted_at),
        cancelled_at: matches!(batch.phase, Phase::Cancelled { .. }).then_some(batch.submitted_at),
        cancel_reason: match &batch.phase {
            Phase::Cancelled { reason } => reason.clone(),
            _ => None,
        },
    };
    Ok(row.says())
}
