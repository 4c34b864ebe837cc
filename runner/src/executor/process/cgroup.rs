//! Limits by control groups, version 1 or 2, where they are writable.
//!
//! A limited command gets a group of its own below `rgrid` at the hierarchy's root, as Docker does, or else below the runner's own
//! group. Version 2 lets only the root and groups without processes hand controllers down, so there a runner that is not root needs
//! a delegated group with a prepared `cgroup.subtree_control`; without, memory is limited by sampling.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::{debug, warn};

use super::{mark::ProcessId, proc};
use crate::executor::Limits;

/// The period that a CPU quota counts in, in microseconds: the kernel's default.
const PERIOD_MICROS: u64 = 100_000;

/// Where limits can be set.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    memory: Option<GroupParent>,
    cpu: Option<GroupParent>,
    runner: ProcessId,
}

/// A directory that commands' groups are made in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupParent {
    version: Version,
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The group of one limited command.
#[derive(Debug)]
pub(super) struct Group {
    directories: Vec<PathBuf>,
    memory: Option<(Version, PathBuf)>,
}

impl Cgroups {
    /// Looks for what is writable, and clears away what runners left behind that are no more.
    pub(super) fn detect(runner: ProcessId) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let parent_group = |controller: &str| {
            candidates(controller, &mounts, &own)
                .into_iter()
                .find_map(|(version, parent)| GroupParent::make(version, &parent, controller).ok())
        };
        let found = Self {
            memory: parent_group("memory"),
            cpu: parent_group("cpu"),
            runner,
        };
        debug!(memory = ?found.memory, cpu = ?found.cpu, "control groups");
        for parent_group in found.memory.iter().chain(&found.cpu) {
            parent_group.remove_stale();
        }
        found
    }

    /// No control groups, even if there are some.
    pub(super) fn none(runner: ProcessId) -> Self {
        Self {
            memory: None,
            cpu: None,
            runner,
        }
    }

    /// Whether memory is limited by a group.
    pub(super) fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether CPUs are.
    pub(super) fn limits_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// Makes the group of a command; `None` if no limit is asked for that a group can hold.
    ///
    /// # Errors
    /// If the kernel refuses; nothing is left behind then.
    pub(super) fn group(&self, id: u64, limits: Limits) -> io::Result<Option<Group>> {
        let memory = self.memory.as_ref().zip(limits.memory_bytes);
        let cpu = self.cpu.as_ref().zip(limits.cpu_milli);
        if memory.is_none() && cpu.is_none() {
            return Ok(None);
        }
        let name = format!("{}-{id}", self.runner);
        let mut group = Group {
            directories: Vec::new(),
            memory: None,
        };
        let made = (|| {
            if let Some((parent_group, bytes)) = memory {
                let directory = group.enter(parent_group, &name)?;
                limit_memory(parent_group.version, &directory, bytes)?;
                group.memory = Some((parent_group.version, directory));
            }
            if let Some((parent_group, milli)) = cpu {
                let directory = group.enter(parent_group, &name)?;
                limit_cpu(parent_group.version, &directory, milli)?;
            }
            Ok(())
        })();
        made.map(|()| Some(group))
    }
}

impl Group {
    /// The files that a process writes its number to, to be in the group.
    pub(super) fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.directories.iter().map(|directory| directory.join("cgroup.procs"))
    }

    /// Whether the kernel killed a process of the group for the memory it used.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let Some((version, directory)) = &self.memory else {
            return false;
        };
        let file = match version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|kills| kills.trim() != "0")
    }

    /// Removes the group if the kernel lets it go at once. Returns whether it did.
    pub(super) fn try_remove(&mut self) -> bool {
        self.directories
            .retain(|directory| matches!(fs::remove_dir(directory), Err(error) if error.kind() == io::ErrorKind::ResourceBusy));
        self.directories.is_empty()
    }

    /// Removes the group, whose processes are gone; the kernel may need a moment to see it so.
    pub(super) async fn remove(mut self) {
        for directory in std::mem::take(&mut self.directories) {
            let mut result = fs::remove_dir(&directory);
            for _ in 0..100 {
                if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::ResourceBusy) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                result = fs::remove_dir(&directory);
            }
            if let Err(error) = result {
                warn!("control group {} could not be removed: {error}", directory.display());
            }
        }
    }

    fn enter(&mut self, parent_group: &GroupParent, name: &str) -> io::Result<PathBuf> {
        let directory = parent_group.directory.join(name);
        if !self.directories.contains(&directory) {
            fs::create_dir(&directory)?;
            self.directories.push(directory.clone());
        }
        Ok(directory)
    }
}

impl Drop for Group {
    /// A group that no command came to is removed at once.
    fn drop(&mut self) {
        for directory in &self.directories {
            fs::remove_dir(directory).ok();
        }
    }
}

impl GroupParent {
    /// Makes the directory, and tries whether a group in it can be limited.
    fn make(version: Version, parent: &Path, controller: &str) -> io::Result<Self> {
        let directory = parent.join("rgrid");
        if version == Version::Two {
            hand_down(parent, controller)?;
        }
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if version == Version::Two {
            hand_down(&directory, controller)?;
        }
        let probe = directory.join(format!("probe-{}-{controller}", std::process::id()));
        fs::create_dir(&probe)?;
        let writable = match controller {
            "memory" => limit_memory(version, &probe, 1 << 30),
            _ => limit_cpu(version, &probe, 1000),
        };
        fs::remove_dir(&probe)?;
        writable.map(|()| Self { version, directory })
    }

    /// Removes the groups of runners that are no more. Those with processes stay: the kernel sees to that.
    fn remove_stale(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let runner = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<ProcessId>().ok());
            if runner.is_some_and(|runner| !proc::is_alive(runner)) {
                fs::remove_dir(entry.path()).ok();
            }
        }
    }
}

/// Where a controller's groups could be made, the best place first.
fn candidates(controller: &str, mounts: &str, own: &str) -> Vec<(Version, PathBuf)> {
    let mut places = Vec::new();
    for mount in mounts.lines() {
        let mut fields = mount.split(' ').skip(1);
        let (Some(point), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version = match kind {
            "cgroup" if options.split(',').any(|option| option == controller) => Version::One,
            "cgroup2" => Version::Two,
            _ => continue,
        };
        places.push((version, PathBuf::from(point)));
        let below = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let is_it = match version {
                Version::One => controllers.split(',').any(|name| name == controller),
                Version::Two => controllers.is_empty(),
            };
            is_it.then(|| path.trim_start_matches('/')).filter(|path| !path.is_empty())
        });
        places.extend(below.map(|below| (version, Path::new(point).join(below))));
    }
    places
}

/// Version 2: lets the children of a group be limited by a controller.
fn hand_down(group: &Path, controller: &str) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    if fs::read_to_string(&file)?.split_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    fs::write(file, format!("+{controller}"))
}

fn limit_memory(version: Version, group: &Path, bytes: u64) -> io::Result<()> {
    match version {
        Version::One => {
            fs::write(group.join("memory.limit_in_bytes"), bytes.to_string())?;
            // Absent where the kernel does not count swap.
            fs::write(group.join("memory.memsw.limit_in_bytes"), bytes.to_string()).ok();
        }
        Version::Two => {
            fs::write(group.join("memory.max"), bytes.to_string())?;
            fs::write(group.join("memory.swap.max"), "0").ok();
            // All of it or nothing: a job with a hole in it is worse than a dead one.
            fs::write(group.join("memory.oom.group"), "1").ok();
        }
    }
    Ok(())
}

fn limit_cpu(version: Version, group: &Path, milli: u32) -> io::Result<()> {
    // The kernel takes no quota below a millisecond.
    let quota = (u64::from(milli) * PERIOD_MICROS / 1000).max(1000);
    match version {
        Version::One => {
            fs::write(group.join("cpu.cfs_period_us"), PERIOD_MICROS.to_string())?;
            fs::write(group.join("cpu.cfs_quota_us"), quota.to_string())
        }
        Version::Two => fs::write(group.join("cpu.max"), format!("{quota} {PERIOD_MICROS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_comes_before_the_own_group_in_either_version() {
        let mounts =
            "cgroup /cg/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /cg/memory cgroup rw,memory 0 0\nnone /cg/unified cgroup2 rw 0 0\n";
        let own = "4:memory:/service\n1:cpu,cpuacct:/\n0::/system.slice/rgrid.service\n";
        let expected = [
            (Version::One, PathBuf::from("/cg/memory")),
            (Version::One, PathBuf::from("/cg/memory/service")),
            (Version::Two, PathBuf::from("/cg/unified")),
            (Version::Two, PathBuf::from("/cg/unified/system.slice/rgrid.service")),
        ];
        assert_eq!(candidates("memory", mounts, own), expected);
        assert_eq!(candidates("cpu", mounts, own)[0], (Version::One, PathBuf::from("/cg/cpu,cpuacct")));
    }
}
