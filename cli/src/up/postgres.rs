//! The private `PostgreSQL`: its cluster, made once; the settings of a small quiet server; whether it answers.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::process::Command;

use super::{
    dir::{DataDir, is_root},
    grid_file::GridFile,
    part::Part,
    programs::Postgres,
};

/// The longest path of a Unix socket is 107 bytes; its name, `.s.PGSQL.65535.lock`, takes 20 with the slash.
const MAX_SOCKET_DIR_BYTES: usize = 87;

/// Small and quiet. Every table is a fold of the log and can be rebuilt, so a commit need not wait for the disk; `fsync` stays
/// on, since a torn cluster would not even start.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "max_connections=50",
    "shared_buffers=32MB",
    "jit=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=256MB",
    "max_logical_replication_workers=0",
    "max_parallel_workers_per_gather=0",
    "checkpoint_timeout=15min",
    "autovacuum_max_workers=1",
    "autovacuum_naptime=5min",
    "log_checkpoints=off",
    "log_autovacuum_min_duration=-1",
    "log_timezone=UTC",
    "timezone=UTC",
];

/// The user that the database runs as: `PostgreSQL` refuses to run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

/// The major version that made the cluster in the data directory, if there is one.
pub(super) fn cluster_major(dir: &DataDir) -> Option<u64> {
    fs::read_to_string(cluster(dir).join("PG_VERSION")).ok()?.trim().parse().ok()
}

fn cluster(dir: &DataDir) -> PathBuf {
    dir.postgres().join("data")
}

/// Makes the cluster, if there is none that these programs can read, and returns the command that starts the server.
pub(super) async fn command(dir: &DataDir, grid: &GridFile, programs: &Postgres) -> anyhow::Result<Command> {
    let owner = prepare(dir)?;
    if let Some(found) = cluster_major(dir)
        && found != programs.major
    {
        // Its tables are rebuilt from the log, so a new cluster is as good; kept, in case somebody put more into it.
        let (old, aside) = (cluster(dir), dir.postgres().join(format!("data-{found}")));
        fs::rename(&old, &aside)
            .with_context(|| format!("cannot move {} out of the way of PostgreSQL {}", old.display(), programs.major))?;
    }
    if cluster_major(dir).is_none() {
        init(dir, grid, programs, owner).await?;
    }
    let port = grid.port(Part::Postgres).context("grid.json names no database port")?;
    let mut command = as_owner(&programs.bin.join("postgres"), dir, owner);
    command.arg("-D").arg(cluster(dir));
    let socket_dir = dir.postgres().into_os_string();
    let socket_dir = if socket_dir.len() <= MAX_SOCKET_DIR_BYTES {
        socket_dir
    } else {
        std::ffi::OsString::new()
    };
    let mut socket_setting = std::ffi::OsString::from("unix_socket_directories=");
    socket_setting.push(socket_dir);
    command.arg("-c").arg(socket_setting).arg("-c").arg(format!("port={port}"));
    for setting in SETTINGS {
        command.arg("-c").arg(setting);
    }
    if programs.major >= 18 {
        // Its default keeps three more processes about.
        command.args(["-c", "io_method=sync"]);
    }
    Ok(command)
}

/// Creates the directory that the database's user owns, and sees that this user can get there. To be asked before anything
/// is started: what is wrong here does not get better by trying again.
pub(super) fn prepare(dir: &DataDir) -> anyhow::Result<Option<Owner>> {
    let owner = if is_root() { Some(owner()?) } else { None };
    let home = dir.postgres();
    let made = (|| -> io::Result<()> {
        fs::create_dir_all(&home)?;
        fs::set_permissions(&home, Permissions::from_mode(0o700))?;
        if let Some(owner) = owner
            && fs::metadata(&home)?.uid() != owner.uid
        {
            chown(&home, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(())
    })();
    made.with_context(|| format!("cannot make {} for PostgreSQL; choose another --data-dir", home.display()))?;
    let Some(user) = owner else { return Ok(None) };
    for above in home.ancestors().skip(1) {
        let found = fs::metadata(above).with_context(|| format!("cannot look at {}", above.display()))?;
        if !may_enter(user, found.uid(), found.gid(), found.mode()) {
            bail!(
                "PostgreSQL does not run as root, and its own user cannot enter {} (mode {:o}); choose another --data-dir, such as /var/lib/rgrid",
                above.display(),
                found.mode() & 0o7777
            );
        }
    }
    Ok(owner)
}

/// Whether a user may pass through a directory of this owner, group and mode.
fn may_enter(user: Owner, uid: u32, gid: u32, mode: u32) -> bool {
    let bit = if user.uid == uid {
        0o100
    } else if user.gid == gid {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

/// The user `postgres`, or else `nobody`.
fn owner() -> anyhow::Result<Owner> {
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    find_user(&users, "postgres")
        .or_else(|| find_user(&users, "nobody"))
        .context("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`; create one: useradd --system postgres")
}

fn find_user(users: &str, name: &str) -> Option<Owner> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Owner {
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

/// Runs `initdb` beside the place, and moves its work there when it is whole: what a kill leaves half made is never used.
async fn init(dir: &DataDir, grid: &GridFile, programs: &Postgres, owner: Option<Owner>) -> anyhow::Result<()> {
    let (new, password) = (dir.postgres().join("data.new"), dir.postgres().join("password"));
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => bail!("cannot remove {}: {error}", new.display()),
        _ => {}
    }
    super::record::replace(&password, grid.database_url.password().unwrap_or_default().as_bytes(), false)
        .and_then(|()| owner.map_or(Ok(()), |owner| chown(&password, Some(owner.uid), Some(owner.gid))))
        .with_context(|| format!("cannot write {}", password.display()))?;
    let mut command = as_owner(&programs.bin.join("initdb"), dir, owner);
    command.arg("--pgdata").arg(&new).arg("--pwfile").arg(&password);
    command.args([
        "--username",
        grid.database_url.username(),
        "--auth",
        "scram-sha-256",
        "--encoding",
        "UTF8",
        "--locale",
        "C",
    ]);
    // The server's first checkpoint writes it out; a power cut before that leaves a cluster that can be removed.
    command.args(["--no-sync", "--no-instructions"]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let _ = fs::remove_file(&password);
    let output = output.with_context(|| format!("cannot start {}/initdb", programs.bin.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said
            .lines()
            .find(|line| line.contains("error") || line.contains("FATAL"))
            .unwrap_or(said.trim());
        bail!(
            "initdb could not make the database in {} ({}): {reason}",
            new.display(),
            output.status
        );
    }
    fs::rename(&new, cluster(dir)).with_context(|| format!("cannot move {} into place", new.display()))
}

/// A command of the database's user, in a directory that this user may be in, with an environment of its own: the caller's
/// `PGDATA` or locale must not matter.
fn as_owner(program: &Path, dir: &DataDir, owner: Option<Owner>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .current_dir(dir.postgres());
    if let Some(owner) = owner {
        // The standard library drops root's supplementary groups along with the user.
        command.uid(owner.uid).gid(owner.gid);
    }
    command
}

/// The SQLSTATE of an error.
#[derive(Debug, PartialEq, Eq)]
enum SqlState {
    /// `3D000`: the database does not exist.
    NoSuchDatabase,
    Other,
}

impl SqlState {
    fn of(error: &dyn sqlx::error::DatabaseError) -> Self {
        match error.code().as_deref() {
            Some("3D000") => Self::NoSuchDatabase,
            _ => Self::Other,
        }
    }
}

/// Connects as the services do, and creates their database if it is not there yet.
pub(super) async fn probe(grid: &GridFile) -> anyhow::Result<()> {
    let options: PgConnectOptions = grid.database_url.as_str().parse()?;
    match PgConnection::connect_with(&options).await {
        Ok(connection) => Ok(connection.close().await?),
        Err(sqlx::Error::Database(error)) if SqlState::of(error.as_ref()) == SqlState::NoSuchDatabase => {
            let mut maintenance = PgConnection::connect_with(&options.database("postgres")).await?;
            sqlx::raw_sql("CREATE DATABASE rgrid").execute(&mut maintenance).await?;
            Ok(maintenance.close().await?)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:9:9::/:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(find_user(users, "postgres"), Some(Owner { uid: 101, gid: 104 }));
        assert_eq!(find_user(users, "nobody"), None);
    }

    #[test]
    fn the_way_down_must_be_open_to_the_database_user() {
        let user = Owner { uid: 101, gid: 104 };
        assert!(may_enter(user, 0, 0, 0o40_711));
        assert!(!may_enter(user, 0, 0, 0o40_700));
        assert!(may_enter(user, 101, 104, 0o40_700));
        assert!(!may_enter(user, 101, 0, 0o40_077), "the owner's bits count for the owner");
        assert!(may_enter(user, 0, 104, 0o40_710));
    }
}
