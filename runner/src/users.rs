//! Users for jobs, where the runner is root: each running job has a user of its own, so that it can neither signal nor read another job,
//! the runner, or the files of other users. See docs/decisions/0011.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use parking_lot::Mutex;

/// How many users one runner has, and so how many of its jobs can have a user of their own at once.
const BLOCK: u32 = 1024;
/// Where the runners of this machine lock their ranges of users.
const LOCKS: &str = "/run/rgrid-job-users";

/// Users, by their numbers; each has the group of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Default for Range {
    /// Beyond what Debian's policy, `adduser`, `/etc/subuid`, systemd and SSSD hand out (2,000,200,000 is the last of theirs), and below
    /// systemd's foreign users (from 2,147,352,576 on) and what no longer fits into 31 bits.
    fn default() -> Self {
        Self {
            first: 2_100_000_000,
            last: 2_100_065_535,
        }
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text
            .split_once('-')
            .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match ends {
            // No job runs as root, and the last number means "no user".
            Some((first @ 1.., last @ ..=0xffff_fffe)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is not a range of user numbers such as 2100000000-2100065535")),
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Which users jobs run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobUsers {
    /// Users of the usual range, where the runner is root: in containers always, as plain processes where everybody can reach their
    /// directories and the programs of the runner's `PATH`.
    Auto,
    /// The runner's own, and `nobody` in containers where that is root.
    Off,
    /// Users of this range, in containers and as plain processes.
    Range(Range),
}

impl FromStr for JobUsers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            range => range.parse().map(Self::Range),
        }
    }
}

/// The user that a command runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAs {
    /// The user's number, and that of its group.
    pub user: u32,
    /// Whether plain processes run as this user, and not only containers.
    pub plain: bool,
}

/// The users of this runner's jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Users(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    range: Range,
    /// Whether plain processes run as these users.
    plain: bool,
    used: Mutex<BTreeSet<u32>>,
    /// Locked for as long as they are this runner's.
    _lock: Option<File>,
}

/// The user of one job, until this is dropped.
#[derive(Debug)]
pub(crate) struct User {
    users: Users,
    number: u32,
}

/// Why jobs get no users of their own, with the text that the operator reads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unable(pub(crate) String);

impl Users {
    /// The users that were chosen for this work directory and this `PATH`, where there are any; and what the operator is to know of it.
    ///
    /// # Errors
    /// Where a range was asked for and cannot be had.
    pub(crate) fn choose(chosen: JobUsers, work_dir: &Path, path: &std::ffi::OsStr) -> Result<(Option<Self>, Option<String>), Unable> {
        let root = rustix::process::geteuid().is_root();
        match chosen {
            JobUsers::Off => Ok((None, None)),
            JobUsers::Auto if !root => Ok((None, None)),
            JobUsers::Range(_) if !root => Err(Unable(
                "only root can run jobs as users of their own; leave --job-users out, or start the runner as root".to_owned(),
            )),
            JobUsers::Range(range) => {
                if let Some(closed) = closed_to_others(work_dir) {
                    return Err(Unable(format!(
                        "jobs cannot run as users of their own in {}, since others may not enter {}; choose another --work-dir, or `chmod o+x` it",
                        work_dir.display(),
                        closed.display()
                    )));
                }
                Self::of(range, true).map(|users| (Some(users), None))
            }
            JobUsers::Auto => {
                let mut needed = std::env::split_paths(path).filter(|dir| dir.is_dir()).chain([work_dir.to_owned()]);
                let closed = needed.find_map(|dir| closed_to_others(&dir));
                let note = closed.as_ref().map(|closed| {
                    format!(
                        "plain processes run as root, since others may not enter {}: they can read whatever root can; \
                         see --job-users in `rgrid runner --help`",
                        closed.display()
                    )
                });
                match Self::of(Range::default(), closed.is_none()) {
                    Ok(users) => Ok((Some(users), note)),
                    Err(Unable(why)) => Ok((None, Some(format!("jobs get no users of their own: {why}")))),
                }
            }
        }
    }

    fn of(range: Range, plain: bool) -> Result<Self, Unable> {
        for (file, by_name) in [
            ("/etc/passwd", false),
            ("/etc/group", false),
            ("/etc/subuid", true),
            ("/etc/subgid", true),
        ] {
            let text = fs::read_to_string(file).unwrap_or_default();
            if let Some(line) = taken(&text, by_name, range) {
                return Err(Unable(format!(
                    "{file} gives numbers of the range {range} to others (`{line}`); choose another range with --job-users FIRST-LAST"
                )));
            }
        }
        let cannot = |error: io::Error| Unable(format!("cannot note in {LOCKS} which users are taken: {error}"));
        match DirBuilder::new().mode(0o700).create(LOCKS) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(error)),
            _ => {}
        }
        for first in (range.first..=range.last).step_by(BLOCK as usize) {
            let file = Path::new(LOCKS).join(first.to_string());
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(file)
                .map_err(cannot)?;
            if lock.try_lock().is_ok() {
                let last = range.last.min(first.saturating_add(BLOCK - 1));
                return Ok(Self::new(Range { first, last }, plain, Some(lock)));
            }
        }
        Err(Unable(format!(
            "other runners of this machine have all of the range {range}; choose another one with --job-users FIRST-LAST"
        )))
    }

    fn new(range: Range, plain: bool, lock: Option<File>) -> Self {
        Self(Arc::new(Inner {
            range,
            plain,
            used: Mutex::default(),
            _lock: lock,
        }))
    }

    /// Whether plain processes run as these users.
    pub(crate) fn are_for_processes(&self) -> bool {
        self.0.plain
    }

    /// A user that no job has.
    ///
    /// # Errors
    /// If each has one.
    pub(crate) fn take(&self) -> io::Result<User> {
        let mut used = self.0.used.lock();
        let free = (self.0.range.first..=self.0.range.last).find(|number| !used.contains(number));
        let number = free.ok_or_else(|| io::Error::other(format!("every user of the range {} has a job already", self.0.range)))?;
        used.insert(number);
        Ok(User {
            users: self.clone(),
            number,
        })
    }

    /// The user that a directory belongs to, if that is one of these and no other job has it.
    pub(crate) fn of_directory(&self, dir: &Path) -> Option<User> {
        let number = fs::symlink_metadata(dir).ok()?.uid();
        let ours = (self.0.range.first..=self.0.range.last).contains(&number);
        (ours && self.0.used.lock().insert(number)).then(|| User {
            users: self.clone(),
            number,
        })
    }
}

impl User {
    /// The user as an executor needs it.
    pub(crate) fn run_as(&self) -> RunAs {
        RunAs {
            user: self.number,
            plain: self.users.0.plain,
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.users.0.used.lock().remove(&self.number);
    }
}

/// Gives directories and all that is in them to a user, but for what it has already: nothing is changed in vain. Links are not followed.
///
/// # Errors
/// If the disk does not allow it.
pub(crate) fn give(directories: &[PathBuf], user: u32, group: u32) -> io::Result<()> {
    for entry in directories.iter().flat_map(walkdir::WalkDir::new) {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if (metadata.uid(), metadata.gid()) != (user, group) {
            std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))?;
        }
    }
    Ok(())
}

/// The first directory on the way to this one that other users may not enter, if there is one.
fn closed_to_others(dir: &Path) -> Option<PathBuf> {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let closed = |dir: &&Path| fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0);
    real.ancestors().filter(closed).last().map(Path::to_owned)
}

/// The first line of such a file that gives a number of the range to somebody. With `by_name`, each is a name, the first number and how
/// many; otherwise the third field is a number.
fn taken(text: &str, by_name: bool, range: Range) -> Option<&str> {
    text.lines().find(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let (first, count) = if by_name { (number(1), number(2)) } else { (number(2), Some(1)) };
        let ours = u64::from(range.first)..=u64::from(range.last);
        first
            .zip(count)
            .is_some_and(|(first, count)| count > 0 && first <= *ours.end() && first.saturating_add(count - 1) >= *ours.start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_numbers_in_order_and_never_root() {
        assert_eq!("5-7".parse(), Ok(Range { first: 5, last: 7 }));
        assert_eq!("auto".parse(), Ok(JobUsers::Auto));
        for wrong in ["", "7", "7-5", "0-9", "5-4294967295", "a-b"] {
            assert!(wrong.parse::<JobUsers>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn user_ids_in_use_are_seen() {
        let range = Range { first: 1000, last: 1999 };
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(taken(passwd, false, range), Some("me:x:1000:1000::/home/me:/bin/sh"));
        assert_eq!(taken("root:x:0:0::/root:/bin/sh\n", false, range), None);
        assert_eq!(taken("me:500:501\n", true, range), Some("me:500:501"));
        assert_eq!(taken("me:500:500\nyou:2000:65536\n", true, range), None);
    }

    #[test]
    fn each_job_has_a_user_to_itself() {
        let users = Users::new(Range { first: 5, last: 6 }, true, None);
        let (a, b) = (users.take().expect("a user"), users.take().expect("a user"));
        assert_ne!(a.run_as().user, b.run_as().user);
        assert!(users.take().is_err());
        let freed = a.run_as().user;
        drop(a);
        assert_eq!(users.take().expect("a user").run_as().user, freed);
    }

    #[test]
    fn a_closed_directory_on_the_way_is_found() {
        let temp = tempfile::tempdir().expect("a directory");
        let inner = temp.path().join("inner");
        fs::create_dir(&inner).expect("a directory");
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o700)).expect("rights");
        assert_eq!(closed_to_others(&inner), Some(temp.path().canonicalize().expect("a path")));
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o711)).expect("rights");
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o711)).expect("rights");
        assert_eq!(closed_to_others(&inner), None);
    }
}
