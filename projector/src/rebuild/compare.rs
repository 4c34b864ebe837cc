//! Compares the old and the new tables row by row. Only hashes are fetched.

use std::collections::HashSet;

use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, postgres::PgArguments, query::QueryAs};
use uuid::Uuid;

use super::SCHEMA;
use crate::project::{Item, What};

/// How to find the rows of a table that events touched.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// By the job's id, which is in this column.
    ByJob(&'static str),
    /// By the batch.
    ByBatch,
    /// All rows: they are few.
    All,
    /// By the sequence of the event.
    BySequence,
}

/// A table to compare: its name, its key, and how to find the rows that were touched.
type Compared = (&'static str, &'static str, Found);

const COMPARED: [Compared; super::tables::TABLES.len()] = [
    ("jobs", "t.id", Found::ByJob("id")),
    ("batches", "t.id", Found::ByBatch),
    ("attempts", "(t.job_id, t.number)", Found::ByJob("job_id")),
    ("artifacts", "(t.job_id, t.attempt, t.position)", Found::ByJob("job_id")),
    ("workers", "t.id", Found::All),
    ("projection_skipped", "t.sequence", Found::BySequence),
];

/// What events touched: they can have changed only the rows of these jobs and batches, of workers, and of skipped messages.
#[derive(Debug, Default)]
pub(super) struct Touched {
    jobs: HashSet<Uuid>,
    batches: HashSet<Uuid>,
    /// The first of these events.
    from: Option<u64>,
}

impl Touched {
    /// Adds a batch of events.
    pub(super) fn add(&mut self, items: &[Item]) {
        for item in items {
            match &item.what {
                What::Job(recorded) => drop(self.jobs.insert(recorded.job.uuid())),
                What::Batch(recorded) => drop(self.batches.insert(recorded.batch.uuid())),
                What::Worker(_) | What::NotInTables | What::Unreadable(_) => {}
            }
        }
        self.from = self.from.or_else(|| items.first().map(|item| item.sequence));
    }
}

/// The rows that differed, of each table.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Hashes of the keys, so that a row that differed twice counts once.
    keys: [HashSet<i64>; COMPARED.len()],
}

impl Differences {
    /// How many rows of each table differed.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        COMPARED.iter().zip(&self.keys).map(|((name, ..), keys)| (*name, keys.len() as u64))
    }

    /// Compares the tables, or the rows that were touched. Both sides must be the fold of the same events. A missing table, or one with
    /// other columns, differs in every row.
    pub(super) async fn compare(
        &mut self,
        live: &mut PgConnection,
        new: &mut PgConnection,
        touched: Option<&Touched>,
    ) -> Result<(), sqlx::Error> {
        if touched.is_some_and(|touched| touched.from.is_none()) {
            return Ok(());
        }
        for (table, keys) in COMPARED.iter().zip(&mut self.keys) {
            let there = has_columns(live, table.0).await?;
            if touched.is_none() && there && sums(live, new, table.0).await? {
                continue;
            }
            rows(live, new, *table, there, touched, keys).await?;
        }
        Ok(())
    }
}

/// Whether the live table has the same columns as the new one.
async fn has_columns(live: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    const COLUMNS: &str = "
        SELECT (SELECT array_agg((attname, atttypid)::text ORDER BY attnum) FROM pg_attribute
                WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped)
             = (SELECT array_agg((attname, atttypid)::text ORDER BY attnum) FROM pg_attribute
                WHERE attrelid = to_regclass($2) AND attnum > 0 AND NOT attisdropped)";
    let same: Option<bool> = sqlx::query_scalar(COLUMNS)
        .bind(table)
        .bind(format!("{SCHEMA}.{table}"))
        .fetch_one(live)
        .await?;
    Ok(same.unwrap_or(false))
}

/// Whether both tables have the same number of rows and the same sum of the rows' hashes. Each row is hashed as text, since not every type
/// can be compared. This needs no order, so it is much faster than comparing each row.
async fn sums(live: &mut PgConnection, new: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    let sum = |schema: &str| {
        AssertSqlSafe(format!(
            "SELECT count(*), sum(hashtextextended(t::text, 0))::text FROM {schema}{table} t"
        ))
    };
    let new_schema = format!("{SCHEMA}.");
    let of = |statement, connection| sqlx::query_as::<_, (i64, Option<String>)>(statement).fetch_one(connection);
    let (old, new) = tokio::try_join!(of(sum(""), live), of(sum(&new_schema), new))?;
    Ok(old == new)
}

/// Finds the rows that differ, and adds their keys.
async fn rows(
    live: &mut PgConnection,
    new: &mut PgConnection,
    (table, key, found): Compared,
    there: bool,
    touched: Option<&Touched>,
    differing: &mut HashSet<i64>,
) -> Result<(), sqlx::Error> {
    let condition = match (touched, found) {
        (None, _) | (Some(_), Found::All) => "true".to_owned(),
        (Some(_), Found::ByJob(column)) => format!("t.{column} = ANY($1)"),
        (Some(_), Found::ByBatch) => "t.id = ANY($1)".to_owned(),
        (Some(_), Found::BySequence) => "t.sequence >= $1".to_owned(),
    };
    let select = |from: &str, condition: &str| {
        format!("SELECT hashtextextended({key}::text, 0), hashtextextended(t::text, 0) FROM {from} t WHERE {condition} ORDER BY 1, 2")
    };
    let new_table = format!("{SCHEMA}.{table}");
    let ours = select(&new_table, &condition);
    let theirs = if there {
        select(table, &condition)
    } else {
        select(&new_table, &format!("{condition} AND false"))
    };
    let mut theirs = bound(&theirs, found, touched).fetch(live);
    let mut ours = bound(&ours, found, touched).fetch(new);
    let (mut their, mut our) = (theirs.try_next().await?, ours.try_next().await?);
    loop {
        let (is_their, is_our) = match (their, our) {
            (None, None) => return Ok(()),
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(old), Some(new)) => (old <= new, new <= old),
        };
        if is_their != is_our {
            differing.extend(if is_their { their } else { our }.map(|(key, _)| key));
        }
        if is_their {
            their = theirs.try_next().await?;
        }
        if is_our {
            our = ours.try_next().await?;
        }
    }
}

/// A query for hashes of keys and of rows.
type Hashes = QueryAs<'static, Postgres, (i64, i64), PgArguments>;

fn bound(sql: &str, found: Found, touched: Option<&Touched>) -> Hashes {
    let query = sqlx::query_as(AssertSqlSafe(sql.to_owned())).persistent(false);
    match (touched, found) {
        (None, _) | (Some(_), Found::All) => query,
        (Some(touched), Found::ByJob(_)) => query.bind(touched.jobs.iter().copied().collect::<Vec<_>>()),
        (Some(touched), Found::ByBatch) => query.bind(touched.batches.iter().copied().collect::<Vec<_>>()),
        (Some(touched), Found::BySequence) => query.bind(touched.from.map_or(0, u64::cast_signed)),
    }
}
