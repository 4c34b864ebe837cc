//! Changes of the rows of batches. They are few compared with those of jobs, so each is a statement.

use bus::{
    batch::{BatchEvent, BatchSubmitted, Recorded},
    ids::{BatchId, Namespace},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::rows::{bigint, integer, text, time};

const INSERT: &str = "
    INSERT INTO batches (id, namespace, submitted_sequence, name, total, parallel, max_failures, fail_fast, retry_of, submitted_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
const SEAL: &str = "UPDATE batches SET sealed_at = $3 WHERE id = $1 AND namespace = $2 AND sealed_at IS NULL AND cancelled_at IS NULL";
const STOP: &str = "UPDATE batches SET stopped_at = $3 WHERE id = $1 AND namespace = $2 AND stopped_at IS NULL AND cancelled_at IS NULL";
const CANCEL: &str = "UPDATE batches SET cancelled_at = $3, cancel_reason = $4 WHERE id = $1 AND namespace = $2 AND cancelled_at IS NULL";

/// A change of a batch's row. How its window moves is not in it: the rows of its members show that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchChange {
    id: BatchId,
    namespace: Namespace,
    at: DateTime<Utc>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    New(BatchSubmitted, u64),
    Sealed,
    Stopped,
    Cancelled(Option<String>),
}

impl BatchChange {
    /// What this event changes.
    pub(crate) fn of(recorded: &Recorded) -> Self {
        let kind = match &recorded.envelope.event {
            BatchEvent::Submitted(submitted) => Kind::New(submitted.clone(), recorded.sequence),
            // A window moves only once the batch is sealed.
            BatchEvent::Sealed(_) | BatchEvent::Advanced(_) => Kind::Sealed,
            BatchEvent::Stopped(_) => Kind::Stopped,
            BatchEvent::Cancelled(event) => Kind::Cancelled(event.reason.as_deref().map(text)),
        };
        Self {
            id: recorded.batch,
            namespace: recorded.namespace.clone(),
            at: time(recorded.envelope.time),
            kind,
        }
    }

    /// Whether it repeats the last change of its batch: every move of a window shows that the batch is sealed.
    pub(crate) fn repeats(&self, before: &[Self]) -> bool {
        let last = before.iter().rfind(|before| before.id == self.id);
        self.kind == Kind::Sealed && last.is_some_and(|last| last.kind == Kind::Sealed && last.namespace == self.namespace)
    }

    /// Changes the row.
    pub(crate) async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statement = match &self.kind {
            Kind::New(..) => INSERT,
            Kind::Sealed => SEAL,
            Kind::Stopped => STOP,
            Kind::Cancelled(_) => CANCEL,
        };
        let query = sqlx::query(statement).bind(self.id.uuid()).bind(self.namespace.as_str());
        let query = match &self.kind {
            Kind::New(submitted, sequence) => query
                .bind(bigint(*sequence))
                .bind(text(&submitted.name))
                .bind(integer(submitted.total))
                .bind(submitted.parallel.map(integer))
                .bind(submitted.max_failures.map(integer))
                .bind(submitted.fail_fast)
                .bind(submitted.retry_of.map(BatchId::uuid))
                .bind(self.at),
            Kind::Sealed | Kind::Stopped => query.bind(self.at),
            Kind::Cancelled(reason) => query.bind(self.at).bind(reason.clone()),
        };
        query.execute(connection).await?;
        Ok(())
    }
}
