//! A Postgres of the tests' own.
//!
//! Making a cluster takes a second, so that the tests of one program share one, each with a database of its own. Statics are
//! not dropped: a small shell guards each cluster, and ends it when the pipe from the test program closes, however that ended.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::process::free_port;

/// How long a cluster may take to be ready, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);
/// The user that Postgres runs as where the tests run as root, which it refuses.
const USER: &str = "postgres";
/// Ends the server when standard input does, and its directory too; keeps that when there is a last word.
const GUARD: &str = r#"
"$0" "$@" & server=$!
if read -r keep; then
    kill -QUIT "$server"; wait "$server"
else
    # One that is stopped hears nothing.
    kill -QUIT "$server"; kill -CONT "$server"; wait "$server"; rm -rf "$PGDATA"
fi"#;
/// A test's data need not survive the machine.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
fsync = off
full_page_writes = off
synchronous_commit = off
shared_buffers = 64MB
";

/// An empty database.
#[derive(Debug, Clone)]
pub struct Postgres {
    url: String,
}

impl Postgres {
    /// Makes a database in the cluster that all tests of this program share.
    pub async fn start() -> Result<Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_try_init(Cluster::start).await?.database().await
    }

    /// Where it is: `postgres://postgres@127.0.0.1:<port>/<name>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connections to it.
    pub async fn pool(&self) -> Result<PgPool> {
        PgPool::connect(&self.url)
            .await
            .with_context(|| format!("failed to connect to {}", self.url))
    }
}

/// A cluster of its own, for a test that ends it half-way. Ended with this handle.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    port: u16,
    guard: Child,
    databases: AtomicU32,
}

impl Cluster {
    /// Makes a cluster, starts it, and waits until it takes connections.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("rgrid-postgres-").tempdir()?.keep();
        let owner = owner()?;
        if let Some((user, group)) = owner {
            chown(&dir, Some(user), Some(group))?;
        }
        let made = run_as(owner, &program("initdb")?, &dir)
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--no-locale", "--username", USER])
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut settings = File::options().append(true).open(dir.join("postgresql.conf"))?;
        settings.write_all(SETTINGS.as_bytes())?;
        let port = free_port()?;
        let guard = launch(owner, &dir, port)?;
        let cluster = Self {
            dir,
            port,
            guard,
            databases: AtomicU32::new(0),
        };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Makes an empty database.
    pub async fn database(&self) -> Result<Postgres> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let statement = format!("CREATE DATABASE {name} TEMPLATE template0");
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(Postgres { url: self.url(&name) })
    }

    /// Ends it at once, as a crash of the machine would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut last_word) = self.guard.stdin.take() {
            last_word.write_all(b"keep\n")?;
        }
        self.guard.wait()?;
        Ok(())
    }

    /// Starts it again, on the same port and with the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.guard = launch(owner()?, &self.dir, self.port)?;
        self.ready().await
    }

    /// Ends it with SIGKILL, every process of it.
    pub fn crash(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.kill()
    }

    /// Signals every process of it, the first one first.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let file = fs::read_to_string(self.dir.join("postmaster.pid"))?;
        let first = file
            .lines()
            .next()
            .context("postmaster.pid names a process")?
            .trim()
            .parse::<i32>()?;
        for pid in [first].into_iter().chain(children(first)).filter_map(Pid::from_raw) {
            // One of its children may have ended just now.
            let _gone = kill_process(pid, signal);
        }
        Ok(())
    }

    fn url(&self, name: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    async fn ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            match PgConnection::connect(&self.url("postgres")).await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if start.elapsed() > READY_MAX => {
                    let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                    return Err(error).with_context(|| format!("Postgres was not ready after {READY_MAX:?}: {log}"));
                }
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // Nothing can be done about a guard that is gone.
        let _status = self.guard.wait();
    }
}

fn children(of: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything, closing brackets too.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}

fn launch(owner: Option<(u32, u32)>, dir: &Path, port: u16) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let child = run_as(owner, Path::new("sh"), dir)
        .args(["-c", GUARD])
        .arg(program("postgres")?)
        .args(["-p", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn();
    child.context("failed to start Postgres")
}

fn run_as(owner: Option<(u32, u32)>, program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("PGDATA", dir).current_dir(dir);
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// The user and group to run as; nothing where the tests do not run as root.
fn owner() -> Result<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let mut fields = users
        .lines()
        .find_map(|line| line.strip_prefix(USER)?.strip_prefix(':'))
        .with_context(|| format!("there is no user {USER}, and Postgres does not run as root; install postgresql"))?
        .split(':')
        .skip(1);
    let mut number = || {
        fields
            .next()
            .and_then(|field| field.parse().ok())
            .context("cannot read /etc/passwd")
    };
    Ok(Some((number()?, number()?)))
}

/// A program of the newest Postgres on the machine: where Debian puts it, else on the path.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions
        .filter_map(|version| {
            Some((
                version.as_ref().ok()?.file_name().to_str()?.parse::<u32>().ok()?,
                version.ok()?.path(),
            ))
        })
        .max();
    let path = newest.map_or_else(|| name.into(), |(_, dir)| dir.join("bin").join(name));
    ensure!(
        path.components().count() == 1 || path.is_file(),
        "{} is not there; install postgresql",
        path.display()
    );
    Ok(path)
}
