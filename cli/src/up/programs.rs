//! Finding the servers' programs on this machine, new enough to be used.

use std::{
    env, fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::process::Command;

/// The oldest nats-server that is used: 2.14.0 to 2.14.4 lose track of pending messages and of batches.
const NATS_MIN: Version = Version(2, 14, 5);
/// The oldest `PostgreSQL` major version that is used.
const POSTGRES_MIN: u64 = 15;
/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u64, u64, u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The nats-server program.
#[derive(Debug)]
pub(super) struct NatsServer {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

/// `PostgreSQL`'s programs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Postgres {
    /// The directory that holds `postgres` and `initdb`.
    pub(super) bin: PathBuf,
    pub(super) major: u64,
}

/// Finds nats-server: `RGRID_NATS_SERVER`, or else the first on `PATH`, or in `.rgrid/bin` beside this program or above it (where a
/// checkout's bootstrap puts it), that is new enough. Never in the current directory, which may be a stranger's.
pub(super) async fn nats_server() -> anyhow::Result<NatsServer> {
    let get_one = format!(
        "get one from https://github.com/nats-io/nats-server/releases (in a checkout of rgrid: scripts/bootstrap demo) \
         and put it on PATH, or name it with RGRID_NATS_SERVER; {NATS_MIN} or newer is needed"
    );
    let mut unfit = None;
    for path in nats_candidates() {
        match nats_version(&path).await {
            Ok(version) if version >= NATS_MIN => return Ok(NatsServer { path, version }),
            Ok(version) => {
                unfit.get_or_insert(format!("nats-server {version} at {} is too old", path.display()));
            }
            Err(error) => {
                unfit.get_or_insert(format!("nats-server at {} cannot be used ({error:#})", path.display()));
            }
        }
    }
    bail!("{}; {get_one}", unfit.unwrap_or_else(|| "found no nats-server".to_owned()))
}

fn nats_candidates() -> Vec<PathBuf> {
    if let Some(path) = env::var_os("RGRID_NATS_SERVER").filter(|path| !path.is_empty()) {
        return vec![PathBuf::from(path)];
    }
    let on_path = path_dirs().into_iter().map(|dir| dir.join("nats-server"));
    let beside = env::current_exe().map_or_else(|_| Vec::new(), |program| beside(&program));
    on_path.filter(|path| path.is_file()).chain(beside).collect()
}

/// Those in `.rgrid/bin` beside a program or above it that nobody else can have put there.
fn beside(program: &Path) -> Vec<PathBuf> {
    let is_own = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| is_safe(&meta));
    let above = program.ancestors().skip(1);
    let safe = above.filter(|dir| is_own(dir) && is_own(&dir.join(".rgrid")) && is_own(&dir.join(".rgrid/bin")));
    safe.map(|dir| dir.join(".rgrid/bin/nats-server"))
        .filter(|path| path.is_file())
        .collect()
}

/// Whether something belongs to this user or to root, and nobody else may write to it. A link's own bits say nothing.
pub(super) fn is_safe(meta: &fs::Metadata) -> bool {
    let me = rustix::process::geteuid().as_raw();
    (meta.uid() == me || meta.uid() == 0) && (meta.is_symlink() || meta.mode() & 0o022 == 0)
}

fn path_dirs() -> Vec<PathBuf> {
    env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).filter(|dir| dir.is_absolute()).collect())
}

/// A command for a part of the grid, scheduled so that it does not push aside who runs when a message wakes it (`SCHED_BATCH`;
/// `man 7 sched`): it takes the next ones along then. On a busy machine the grid takes 4 % less CPU for a job (measured:
/// 2.18 seconds for 1,000 jobs without, 2.09 with it). Where there is no `chrt`, it goes without.
pub(super) fn calm(program: &Path) -> Command {
    let Some(chrt) = path_dirs().into_iter().map(|dir| dir.join("chrt")).find(|path| path.is_file()) else {
        return Command::new(program);
    };
    let mut command = Command::new(chrt);
    command.arg("--batch").arg("0").arg(program);
    command
}

async fn nats_version(path: &Path) -> anyhow::Result<Version> {
    let said = version_line(path).await?;
    said.split_whitespace()
        .last()
        .and_then(parse_version)
        .with_context(|| format!("it does not report its version: `{}`", said.trim()))
}

/// Reads `v2.15.1`, `2.15.1-RC.2` or `15.14`.
fn parse_version(text: &str) -> Option<Version> {
    let core = text.strip_prefix('v').unwrap_or(text);
    let core = core.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut numbers = core.split('.').map(str::parse);
    let version = Version(numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next().unwrap_or(Ok(0)).ok()?);
    Some(version)
}

/// Finds `PostgreSQL`: `RGRID_POSTGRES_BIN`, or else on `PATH`, or else the newest of Debian's. `major`, the version that the
/// data directory was made with, comes first, since no other can read it.
pub(super) async fn postgres(major: Option<u64>) -> anyhow::Result<Postgres> {
    if let Some(bin) = env::var_os("RGRID_POSTGRES_BIN").filter(|bin| !bin.is_empty()).map(PathBuf::from) {
        let found = postgres_in(&bin).await;
        return found.with_context(|| format!("cannot use PostgreSQL from RGRID_POSTGRES_BIN={}", bin.display()));
    }
    let mut found = Vec::new();
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    for bin in path_dirs().into_iter().chain(debian) {
        if bin.join("postgres").is_file() && bin.join("initdb").is_file() {
            found.extend(postgres_in(&bin).await.ok());
        }
    }
    choose_postgres(found, major).with_context(|| {
        format!(
            "found no PostgreSQL {POSTGRES_MIN} or newer on PATH or in /usr/lib/postgresql; install it with \
             `apt-get install postgresql` (Debian, Ubuntu), or name its directory with RGRID_POSTGRES_BIN"
        )
    })
}

/// The one that made the data, or else the newest; of two of a version the first.
fn choose_postgres(found: Vec<Postgres>, major: Option<u64>) -> Option<Postgres> {
    found.into_iter().rev().max_by_key(|one| (Some(one.major) == major, one.major))
}

async fn postgres_in(bin: &Path) -> anyhow::Result<Postgres> {
    let said = version_line(&bin.join("postgres")).await?;
    // postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)
    let number = said.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok());
    let major = number.with_context(|| format!("it does not report its version: `{}`", said.trim()))?;
    if major < POSTGRES_MIN {
        bail!("PostgreSQL {major} is too old; {POSTGRES_MIN} or newer is needed");
    }
    if !bin.join("initdb").is_file() {
        bail!("there is no initdb beside postgres");
    }
    Ok(Postgres {
        bin: bin.to_owned(),
        major,
    })
}

async fn version_line(program: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .context("it does not answer `--version`")??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_is_taken_that_another_user_could_have_put_there() -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir()?;
        let bin = temp.path().join("checkout/.rgrid/bin");
        fs::create_dir_all(&bin)?;
        fs::write(bin.join("nats-server"), "")?;
        let set = |path: &str, mode| fs::set_permissions(temp.path().join(path), fs::Permissions::from_mode(mode));
        for path in ["checkout", "checkout/.rgrid", "checkout/.rgrid/bin"] {
            set(path, 0o755)?;
        }
        let program = temp.path().join("checkout/target/debug/rgrid");
        assert_eq!(beside(&program), [bin.join("nats-server")]);
        for path in ["checkout", "checkout/.rgrid", "checkout/.rgrid/bin"] {
            set(path, 0o777)?;
            assert!(beside(&program).is_empty(), "{path}");
            set(path, 0o755)?;
        }
        Ok(())
    }

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(parse_version("v2.15.1"), Some(Version(2, 15, 1)));
        assert_eq!(parse_version("2.14.5-RC.1"), Some(Version(2, 14, 5)));
        assert_eq!(parse_version("2.11"), Some(Version(2, 11, 0)));
        assert_eq!(parse_version("main"), None);
        assert!(Version(2, 9, 30) < NATS_MIN && Version(2, 14, 10) > NATS_MIN && Version(3, 0, 0) > NATS_MIN);
    }

    #[test]
    fn the_database_is_served_by_the_version_that_made_it() {
        let found = || [(17, "a"), (15, "b"), (17, "c")].map(|(major, bin)| Postgres { bin: bin.into(), major });
        let chosen = |major| choose_postgres(found().into(), major).map(|one| one.bin);
        assert_eq!(chosen(None), Some("a".into()));
        assert_eq!(chosen(Some(15)), Some("b".into()));
        assert_eq!(chosen(Some(16)), Some("a".into()));
        assert_eq!(choose_postgres(Vec::new(), None), None);
    }
}
