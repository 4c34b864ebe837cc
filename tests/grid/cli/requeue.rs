//! Reviving jobs that were given up.

use anyhow::{Context as _, Result};
use bus::{
    envelope::Actor,
    ids::Attempt,
    job::{Command, LossCause},
};
use grid_tests::{
    grid::{Grid, Part},
    writer::{Worker, Writer},
};
use serde_json::json;

use super::here::{Came, Here};

/// Jobs whose one attempt was lost, without a worker that would take them.
async fn dead(grid: &Grid, jobs: &[serde_json::Value]) -> Result<Vec<String>> {
    let writer = Writer::connect(grid.nats.url()).await?;
    let worker = Worker::register(&writer, "ghost").await?;
    let mut ids = Vec::new();
    for job in jobs {
        let mut job = job.clone();
        job["command"] = json!(["/bin/true"]);
        job["max_losses"] = json!(1);
        let id = grid.submit(&job).await?["id"].as_str().context("no id")?.to_owned();
        worker.claim(id.parse()?).await?;
        let cause = LossCause::WorkerLost { worker: worker.id.clone() };
        let lost = Command::GiveUp {
            attempt: Attempt::FIRST,
            cause,
        };
        writer.say(id.parse()?, &Actor::Watcher, lost).await?;
        ids.push(id);
    }
    worker.leave().await?;
    Ok(ids)
}

#[tokio::test]
async fn the_dead_are_listed_with_their_cause_and_revived_one_by_one_or_by_a_filter() -> Result<()> {
    let mut grid = Grid::start_only(&[Part::Api, Part::Projector]).await?;
    let here = Here::of(&grid)?;
    let jobs = [
        json!({ "name": "one" }),
        json!({ "queue": "night", "labels": { "team": "a" } }),
        json!({ "queue": "night", "labels": { "team": "b" } }),
        json!({ "name": "four" }),
    ];
    let ids = dead(&grid, &jobs).await?;
    let list = here.rgrid(&["list", "--state", "dead"])?.line()?;
    assert!(list.lines().next().is_some_and(|heading| heading.ends_with("WHY")), "{list}");
    assert_eq!(
        list.matches("all its attempts were lost; the last one: worker ghost was lost")
            .count(),
        4,
        "{list}"
    );
    // Which ones is to be said.
    let none = here.rgrid(&["requeue"])?;
    assert!(none.code == 2 && none.err().contains("--all selects all jobs"), "{}", none.err());
    let both = here.rgrid(&["requeue", "last", "--queue", "night"])?;
    assert_eq!(both.code, 2, "{}", both.err());
    let unasked = here.rgrid(&["requeue", "--all"])?;
    assert!(
        unasked.code == 2 && unasked.err().contains("4 jobs would be queued again") && unasked.err().contains("--yes"),
        "{}",
        unasked.err()
    );
    assert_eq!(
        here.rgrid(&["requeue", &ids[0], "--reason", "a new disk"])?.line()?,
        format!("{} is queued again", ids[0])
    );
    let again = here.rgrid(&["requeue", &ids[0]])?;
    assert!(
        again.code == 1 && again.err().contains("is queued; only a job that is dead"),
        "{}",
        again.err()
    );
    assert!(here.rgrid(&["history", &ids[0]])?.line()?.contains("requeued: a new disk"));
    assert_eq!(
        here.rgrid(&["requeue", "--queue", "night", "--label", "team=a"])?.line()?,
        "1 job is queued again"
    );
    let rest = here.rgrid(&["requeue", "--all", "--yes", "--json"])?.json()?;
    assert_eq!(rest["requeued"], json!([ids[3], ids[2]]));
    assert_eq!(here.rgrid(&["requeue", "--all", "--yes"])?.line()?, "no job was requeued");
    assert_eq!(here.rgrid(&["list", "--state", "dead"])?.line()?, "no jobs");
    // And they run.
    grid.run_with(Part::Runner(1), &["--queue", "default", "--queue", "night"])?;
    for id in &ids {
        let ended = grid.ended(id).await.with_context(|| grid.log(Part::Runner(1)))?;
        assert_eq!(ended["state"], "succeeded");
    }
    Ok(())
}

#[tokio::test]
async fn on_a_terminal_all_of_them_are_counted_and_asked_about() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api, Part::Projector]).await?;
    let here = Here::of(&grid)?;
    let ids = dead(&grid, &[json!({}), json!({})]).await?;
    for (typed, said, state) in [("n", "nothing was requeued", "dead"), ("y", "2 jobs are queued again", "queued")] {
        let requeue = here.command(&["requeue", "--all"]);
        let mut command = std::process::Command::new("python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/grid/scripts/terminal.py"))
            .current_dir(here.path())
            .env_clear()
            .envs(requeue.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("TERM", "xterm")
            .arg(json!(["Queue 2 jobs again?", typed]).to_string())
            .arg(requeue.get_program())
            .args(requeue.get_args());
        let came: Came = command.output()?.into();
        assert!(came.code == 0 && came.out().contains(said), "{}{}", came.out(), came.err());
        for id in &ids {
            assert_eq!(grid.get(&format!("jobs/{id}")).await?["state"], state);
        }
    }
    Ok(())
}
