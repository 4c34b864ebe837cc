//! A rebuild beside a grid that works: nobody waits for it, and one that is killed harms nobody.

use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part, rgrid};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, postgres::PgTransaction};

/// What keeps a rebuild from going on.
#[derive(Debug, Clone, Copy)]
enum Hold {
    /// A table that it must read to compare, and that a projector does not touch.
    Comparing,
    /// A reader that does not end, so that the tables cannot be swapped.
    Swapping,
    /// A vacuum that does not end, which keeps them from that as well.
    Vacuuming,
}

impl Hold {
    /// What another connection does, and the table that the rebuild then waits for.
    const fn statement(self) -> (&'static str, &'static str) {
        match self {
            Self::Comparing => ("LOCK TABLE projection_skipped IN ACCESS EXCLUSIVE MODE", "projection_skipped"),
            Self::Swapping => ("SELECT count(*) FROM jobs", "jobs"),
            Self::Vacuuming => ("LOCK TABLE jobs IN SHARE UPDATE EXCLUSIVE MODE", "jobs"),
        }
    }
}

/// A rebuild as an operator starts it; killed with this handle.
struct Rebuilding(Option<Child>);

impl Rebuilding {
    fn start(grid: &Grid) -> Result<Self> {
        let child = Command::new(rgrid())
            .args(["projector", "rebuild", "--json"])
            .env("RGRID_NATS", grid.nats.url())
            .env("RGRID_DATABASE_URL", grid.postgres.url())
            .env_remove("RGRID_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self(Some(child)))
    }

    fn goes_on(&mut self) -> Result<bool> {
        Ok(self.0.as_mut().context("it was started")?.try_wait()?.is_none())
    }

    fn kill(&mut self) -> Result<()> {
        let mut child = self.0.take().context("it was started")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Its end, and what it said.
    async fn ended(mut self) -> Result<(Output, Value)> {
        let child = self.0.take().context("it was started")?;
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
        let said = serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output, said))
    }
}

impl Drop for Rebuilding {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended already.
            let _gone = (child.kill(), child.wait());
        }
    }
}

/// Waits until somebody waits for a lock on this table.
async fn awaited(grid: &Grid, table: &'static str) -> Result<()> {
    let pool = grid.postgres.pool().await?;
    grid.eventually("the rebuild waits for a lock", async || {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass($1)")
            .bind(table)
            .fetch_one(&pool)
            .await
            .ok()?;
        (waiting > 0).then_some(())
    })
    .await
}

/// Runs a job, and waits until the API lists its end from the tables.
async fn runs_visibly(grid: &Grid) -> Result<()> {
    let job = grid.shell("true").await?;
    grid.eventually("the list tells that the job ended", async || {
        let jobs = grid.get("jobs?state=succeeded&limit=100").await.ok()?;
        jobs["jobs"].as_array()?.iter().any(|listed| listed["id"] == *job).then_some(())
    })
    .await
}

async fn held<'a>(connection: &'a mut PgConnection, hold: Hold) -> Result<PgTransaction<'a>> {
    let mut transaction = connection.begin().await?;
    sqlx::query(hold.statement().0).execute(&mut *transaction).await?;
    Ok(transaction)
}

async fn schemas(grid: &Grid) -> Result<i64> {
    let query = r"SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'rgrid\_re%'";
    Ok(sqlx::query_scalar(query).fetch_one(&grid.postgres.pool().await?).await?)
}

async fn new_jobs_become_visible_while_a_rebuild_is_held(hold: Hold) -> Result<()> {
    let grid = Grid::start().await?;
    for _ in 0..3 {
        runs_visibly(&grid).await?;
    }
    let mut connection = PgConnection::connect(grid.postgres.url()).await?;
    let holding = held(&mut connection, hold).await?;
    let mut rebuilding = Rebuilding::start(&grid)?;
    awaited(&grid, hold.statement().1).await?;
    for _ in 0..3 {
        runs_visibly(&grid).await?;
    }
    ensure!(rebuilding.goes_on()?, "it did not wait: {hold:?}");
    holding.rollback().await?;
    let (output, said) = rebuilding.ended().await?;
    ensure!(output.status.success() && said["identical"] == true, "{said}");
    ensure!(said["tables"][0]["rows"] == 6, "{said}");
    runs_visibly(&grid).await?;
    ensure!(schemas(&grid).await? == 0, "a schema was left behind");
    Ok(())
}

#[tokio::test]
async fn new_jobs_become_visible_while_a_rebuild_compares() -> Result<()> {
    new_jobs_become_visible_while_a_rebuild_is_held(Hold::Comparing).await
}

#[tokio::test]
async fn new_jobs_become_visible_while_a_rebuild_waits_to_swap() -> Result<()> {
    new_jobs_become_visible_while_a_rebuild_is_held(Hold::Swapping).await
}

#[tokio::test]
async fn new_jobs_become_visible_while_a_rebuild_waits_for_a_vacuum() -> Result<()> {
    new_jobs_become_visible_while_a_rebuild_is_held(Hold::Vacuuming).await
}

#[tokio::test]
async fn what_was_falsified_is_told_also_where_the_log_goes_on_meanwhile() -> Result<()> {
    let grid = Grid::start().await?;
    let go = grid.dir().join("go");
    let lasting = grid.shell(&format!("while [ ! -e {} ]; do sleep 0.05; done", go.display())).await?;
    runs_visibly(&grid).await?;
    grid.projected().await?;
    let pool = grid.postgres.pool().await?;
    // An attempt that never was: before the comparison of everything.
    sqlx::query("INSERT INTO attempts (job_id, number, worker, session, claimed_at) SELECT job_id, 7, worker, session, claimed_at FROM attempts WHERE number = 1 LIMIT 1")
        .execute(&pool)
        .await?;
    let mut connection = PgConnection::connect(grid.postgres.url()).await?;
    let holding = held(&mut connection, Hold::Swapping).await?;
    let rebuilding = Rebuilding::start(&grid)?;
    awaited(&grid, "jobs").await?;
    // All was compared. What the log tells of this job since then is compared once more.
    sqlx::query("UPDATE jobs SET name = 'another' WHERE id = $1::text::uuid")
        .bind(&lasting)
        .execute(&pool)
        .await?;
    std::fs::write(&go, "")?;
    grid.ended(&lasting).await?;
    grid.projected().await?;
    holding.rollback().await?;
    let (output, said) = rebuilding.ended().await?;
    ensure!(output.status.code() == Some(1) && said["identical"] == false, "{said}");
    let differing = |name: &str| {
        let tables = said["tables"].as_array().into_iter().flatten();
        tables
            .clone()
            .find(|table| table["name"] == name)
            .map(|table| table["differing"].clone())
    };
    ensure!(
        differing("jobs") == Some(1.into()) && differing("attempts") == Some(1.into()),
        "{said}"
    );
    ensure!(differing("workers") == Some(0.into()), "{said}");
    let (_, said) = Rebuilding::start(&grid)?.ended().await?;
    ensure!(said["identical"] == true, "{said}");
    Ok(())
}

#[tokio::test]
async fn a_rebuild_that_is_killed_leaves_nothing_that_harms() -> Result<()> {
    let mut grid = Grid::start().await?;
    runs_visibly(&grid).await?;
    let mut connection = PgConnection::connect(grid.postgres.url()).await?;
    for hold in [Hold::Comparing, Hold::Swapping] {
        let holding = held(&mut connection, hold).await?;
        let mut rebuilding = Rebuilding::start(&grid)?;
        awaited(&grid, hold.statement().1).await?;
        rebuilding.kill()?;
        // The lock on the table stands: what the dead one's session waits for in the database does not come.
        if matches!(hold, Hold::Comparing) {
            runs_visibly(&grid).await?;
        }
        holding.rollback().await?;
        runs_visibly(&grid).await?;
        grid.kill(Part::Projector)?;
        grid.run(Part::Projector)?;
        runs_visibly(&grid).await?;
        let (output, said) = Rebuilding::start(&grid)?.ended().await?;
        ensure!(output.status.success() && said["identical"] == true, "{hold:?}: {said}");
        ensure!(schemas(&grid).await? == 0, "{hold:?}: a schema was left behind");
    }
    Ok(())
}
