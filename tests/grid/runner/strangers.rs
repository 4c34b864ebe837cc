//! No user of the machine and no other job reads a job, and nothing of it stays. The tests are root's: only root can give users away.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    grid::secrets::Key,
    job::Outcome,
    spec::{ExecutorKind, JobSpec},
};
use grid_tests::grid::rgrid;

use super::{LONG, Service, Yard, gone, lives, outcome, shell};
use crate::log::eventually;

/// The range that is documented.
const USERS: std::ops::RangeInclusive<u32> = 2_100_000_000..=2_100_065_535;

/// A yard that others may enter, with a directory that every job may write to.
async fn open_yard() -> Result<(Yard, PathBuf)> {
    let yard = Yard::start().await?;
    fs::set_permissions(yard.dir.path(), fs::Permissions::from_mode(0o755))?;
    let out = yard.path("out");
    fs::create_dir(&out)?;
    fs::set_permissions(&out, fs::Permissions::from_mode(0o777))?;
    Ok((yard, out))
}

impl Yard {
    /// A runner of four CPUs that gives its jobs users, and has a key for secrets.
    fn runner_with_users(&self) -> Result<Service> {
        fs::write(self.path("grid.key"), Key::generate().to_text())?;
        fs::set_permissions(self.path("grid.key"), fs::Permissions::from_mode(0o600))?;
        let mut command = self.service("runner");
        let range = format!("{}-{}", USERS.start(), USERS.end());
        command
            .args(["--worker", "w", "--cpus", "4", "--memory", "1GiB", "--executor", "auto"])
            .env("RGRID_JOB_USERS", range)
            .arg("--secrets-key-file")
            .arg(self.path("grid.key"))
            .arg("--work-dir")
            .arg(self.path("w"));
        Service::start(command, self.path("w.log"))
    }
}

async fn content(file: &Path) -> Result<String> {
    eventually(&format!("{} is written", file.display()), LONG, async || {
        Ok(fs::read_to_string(file).ok().filter(|text| text.ends_with('\n')))
    })
    .await
    .map(|text| text.trim().to_owned())
}

fn plain(script: &str) -> JobSpec {
    JobSpec {
        executor: Some(ExecutorKind::Process),
        ..shell(script)
    }
}

/// A job that says who and where it is, and stays until told.
fn patient(out: &Path) -> JobSpec {
    let out = out.display();
    plain(&format!(
        "umask 077; echo hidden > mine; pwd > {out}/dir; id -u > {out}/user; echo $$ > {out}/pid; while [ ! -e {out}/go ]; do sleep 0.05; done"
    ))
}

#[tokio::test]
async fn a_plain_process_reads_and_signals_neither_another_job_nor_the_runner() -> Result<()> {
    let (yard, out) = open_yard().await?;
    let runner = yard.runner_with_users()?;
    let other = yard.submit(patient(&out)).await?;
    let (dir, user, pid) = (
        content(&out.join("dir")).await?,
        content(&out.join("user")).await?,
        content(&out.join("pid")).await?,
    );
    let script = format!(
        "out={out}; id -u > $out/user2
         cat {dir}/mine && echo its-file >> $out/read
         cat {key} && echo the-key >> $out/read
         tr '\\0' '\\n' < /proc/{pid}/environ && echo its-environment >> $out/read
         tr '\\0' '\\n' < /proc/{runner}/environ && echo the-runners-environment >> $out/read
         ls {attempts} && echo the-list-of-jobs >> $out/read
         kill -0 {pid} && echo its-process >> $out/read
         echo x > own && chmod 600 own && cat own && touch $HOME/t $TMPDIR/t && exit 0; exit 9",
        out = out.display(),
        key = yard.path("grid.key").display(),
        attempts = yard.path("w/attempts").display(),
        runner = runner.child.id(),
    );
    let mut limited = plain(&script);
    let spy = yard.submit(plain(&script)).await?;
    let job = yard.ended(spy).await?;
    ensure!(*outcome(&job)? == Outcome::Succeeded, "{:?}", job.phase);
    // A limited command comes to its user by another way.
    limited.resources.memory_bytes = Some(256 << 20);
    let job = yard.ended(yard.submit(limited).await?).await?;
    ensure!(*outcome(&job)? == Outcome::Succeeded, "{:?}", job.phase);
    let read = fs::read_to_string(out.join("read")).unwrap_or_default();
    ensure!(read.is_empty(), "a job reached what is not its own:\n{read}");
    let users = [user, content(&out.join("user2")).await?];
    ensure!(users[0] != users[1], "both jobs are user {}", users[0]);
    for user in users {
        ensure!(USERS.contains(&user.parse()?), "{user} is none of the range");
    }
    fs::write(out.join("go"), "")?;
    ensure!(*outcome(&yard.ended(other).await?)? == Outcome::Succeeded);
    Ok(())
}

#[tokio::test]
async fn containers_are_users_of_their_own_and_their_directories_closed_to_others() -> Result<()> {
    let (yard, _) = open_yard().await?;
    let _runner = yard.runner_with_users()?;
    let spec = |script: &str| JobSpec {
        executor: Some(ExecutorKind::Docker),
        image: Some("rgrid/python:3".to_owned()),
        ..shell(script)
    };
    let waits = "echo x > mine && touch /tmp/t $HOME/t && while [ ! -e go ]; do sleep 0.1; done";
    let jobs = [yard.submit(spec(waits)).await?, yard.submit(spec(waits)).await?];
    let places = yard.path("w/attempts");
    let owners = eventually("both containers have written", LONG, async || {
        let places = fs::read_dir(&places)
            .into_iter()
            .flatten()
            .flatten()
            .map(|place| place.path().join("work"));
        let works: Vec<PathBuf> = places.filter(|work| work.join("mine").exists()).collect();
        Ok((works.len() == 2).then_some(works))
    })
    .await?;
    let users: Vec<u32> = owners
        .iter()
        .map(|work| Ok(fs::metadata(work.join("mine"))?.uid()))
        .collect::<Result<_>>()?;
    ensure!(users[0] != users[1] && users.iter().all(|user| USERS.contains(user)), "{users:?}");
    ensure!(fs::metadata(&places)?.mode() & 0o044 == 0, "everybody may list the jobs");
    for work in &owners {
        let place = work.parent().context("a place")?;
        ensure!(fs::metadata(place)?.mode() & 0o007 == 0, "everybody may enter {}", place.display());
        fs::write(work.join("go"), "")?;
    }
    for job in jobs {
        ensure!(*outcome(&yard.ended(job).await?)? == Outcome::Succeeded);
    }
    Ok(())
}

#[tokio::test]
async fn nobody_else_enters_the_directories_of_jobs_of_a_runner_without_users() -> Result<()> {
    let (yard, out) = open_yard().await?;
    let _runner = yard.runner(&[])?;
    let job = yard.submit(patient(&out)).await?;
    let dir = content(&out.join("dir")).await?;
    let stranger = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls", &dir])
        .output()?;
    ensure!(!stranger.status.success(), "another user of the machine lists a job's directory");
    fs::write(out.join("go"), "")?;
    yard.ended(job).await?;
    Ok(())
}

#[tokio::test]
async fn what_left_its_session_and_wiped_its_environment_ends_with_its_job_while_another_runs() -> Result<()> {
    let (yard, out) = open_yard().await?;
    let _runner = yard.runner(&["--cpus", "4"])?;
    let other = yard.submit(patient(&out)).await?;
    let other_pid: i32 = content(&out.join("pid")).await?.parse()?;
    let script = format!(
        "(setsid env -i /bin/sh -c 'echo $$ > {out}/left; exec sleep 300' &); while [ ! -s {out}/left ]; do sleep 0.02; done",
        out = out.display()
    );
    let job = yard.ended(yard.script(&script).await?).await?;
    ensure!(*outcome(&job)? == Outcome::Succeeded);
    let left: i32 = content(&out.join("left")).await?.parse()?;
    ensure!(!lives(left), "a process outlived its job");
    ensure!(lives(other_pid), "the end of one job ended another");
    fs::write(out.join("go"), "")?;
    yard.ended(other).await?;
    gone(other_pid).await?;
    Ok(())
}

async fn no_core_dump(executor: ExecutorKind) -> Result<()> {
    let yard = Yard::start().await?;
    let mut command = Command::new("/bin/sh");
    // Whatever the test itself may: its runner may dump all that it wants.
    command
        .args(["-c", "ulimit -Sc $(ulimit -Hc) && exec \"$0\" \"$@\""])
        .arg(rgrid())
        .args(["runner", "--worker", "w", "--executor", "auto", "--work-dir"])
        .arg(yard.path("w"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RGRID_NATS", yard.nats.url());
    let runner = Service::start(command, yard.path("w.log"))?;
    let spec = JobSpec {
        executor: Some(executor),
        image: (executor == ExecutorKind::Docker).then(|| "rgrid/python:3".to_owned()),
        // It may ask for one.
        ..shell("[ \"$(ulimit -Sc)\" = 0 ] || exit 3; ulimit -Sc $(ulimit -Hc) || exit 4; [ \"$(ulimit -Sc)\" = \"$(ulimit -Hc)\" ]")
    };
    let job = yard.ended(yard.submit(spec).await?).await?;
    ensure!(*outcome(&job)? == Outcome::Succeeded, "{:?}", job.phase);
    let limits = fs::read_to_string(format!("/proc/{}/limits", runner.child.id()))?;
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .context("no limit")?;
    ensure!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    Ok(())
}

#[tokio::test]
async fn neither_the_runner_nor_a_plain_process_dumps_its_memory() -> Result<()> {
    no_core_dump(ExecutorKind::Process).await
}

#[tokio::test]
async fn no_container_dumps_its_memory() -> Result<()> {
    no_core_dump(ExecutorKind::Docker).await
}
