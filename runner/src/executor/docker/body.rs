//! What a container may do: as little as a job needs.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum, SystemInfo,
};
use bus::spec::dependencies::Kind;
use rustix::process::{Resource, getrlimit};

use super::{Config, image::Image};
use crate::{
    executor::{Error, Launch, Packages, process::mark::ProcessId},
    secrets, users,
};

/// Where a container has its work directory.
pub(crate) const WORK: &str = "/work";
/// Where a container finds its secrets.
const SECRETS: &str = "/run/rgrid-secrets";
/// Where it finds its packages.
pub(crate) const PACKAGES: &str = "/opt/rgrid/packages";
/// The user and group of a job when the runner is root and has no users for its jobs: `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

/// How much sooner than others the kernel ends a job's processes where memory runs out, in thousandths of it all.
const OOM_SCORE: i64 = 500;

/// The label of the runner's process: a container is left over if that is gone.
pub(super) const RUNNER: &str = "rgrid.runner";
/// The label of the worker.
pub(super) const WORKER: &str = "rgrid.worker";
/// The label of the runner's session.
const SESSION: &str = "rgrid.session";
/// The label of the machine, as processes see it: elsewhere the runner's number means nothing.
pub(super) const MACHINE: &str = "rgrid.machine";
/// The label of the file in which a runner that restarts notes what it leaves.
pub(super) const NOTE: &str = "rgrid.note";

/// This machine since its start, and the space that its process numbers are in.
pub(super) fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), space.display())
}

/// What is the same for all containers of this daemon.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// User and group inside.
    user: (u32, u32),
    /// Whether the directories must be given to that user, because they are root's.
    hand_over: bool,
    /// The most CPUs that the daemon takes for a limit, in thousandths.
    cpu_milli: Option<u32>,
    /// Half of the machine's memory, in bytes: what may be in `/dev/shm` where a job has no limit, as it is on the machine itself.
    shm_bytes: i64,
    /// What the machine is called.
    host: Option<String>,
    /// The limits that plain processes have of the runner: open files, and the size of a core dump.
    ulimits: Vec<ResourcesUlimits>,
}

impl Setting {
    pub(super) fn of(info: &SystemInfo) -> Self {
        let rootless = info.security_options.iter().flatten().any(|option| option.contains("rootless"));
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (user, hand_over) = match user {
            // Root of a rootless daemon is the user who runs it, and nobody else owns his files.
            _ if rootless => ((0, 0), false),
            0 => ((NOBODY, NOBODY), true),
            user => ((user, group), false),
        };
        Self {
            user,
            hand_over,
            cpu_milli: info.ncpu.and_then(|cpus| u32::try_from(cpus * 1000).ok()),
            shm_bytes: info.mem_total.unwrap_or(0) / 2,
            host: host(&rustix::system::uname().nodename().to_string_lossy()),
            // Who is not root may not raise what it has itself.
            ulimits: if rootless { Vec::new() } else { ulimits() },
        }
    }
}

/// A machine's name, if a container can have it.
fn host(name: &str) -> Option<String> {
    let fits = (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    fits.then(|| name.to_owned())
}

impl Setting {
    /// User and group of this command: its own, where the runner may give its directories away.
    fn user_of(&self, launch: &Launch) -> (u32, u32) {
        let own = launch.user.filter(|_| self.hand_over);
        own.map_or(self.user, |own| (own.user, own.user))
    }
}

/// The runner's own limits, which its plain processes inherit; but no core dump, which holds a job's secrets, unless it asks for one.
fn ulimits() -> Vec<ResourcesUlimits> {
    let number = |limit: Option<u64>| limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(-1));
    [("nofile", Resource::Nofile), ("core", Resource::Core)]
        .into_iter()
        .map(|(name, resource)| {
            let limit = getrlimit(resource);
            ResourcesUlimits {
                name: Some(name.to_owned()),
                soft: Some(if resource == Resource::Core { 0 } else { number(limit.current) }),
                hard: Some(number(limit.maximum)),
            }
        })
        .collect()
}

/// The container's name, for people who list them.
pub(super) fn name(launch: &Launch) -> String {
    let session = launch.session.uuid().simple().to_string();
    let purpose = if launch.installs { "-packages" } else { "" };
    // The end of a session's id is its random part.
    format!("rgrid-{}-{}-{}{purpose}", launch.job, launch.attempt, &session[24..])
}

/// What to create.
///
/// # Errors
/// If the job's directories cannot be named to the daemon, or its runtime is unknown.
pub(super) fn of(
    launch: &Launch,
    image: &Image,
    config: &Config,
    setting: &Setting,
    has_init: bool,
    runner: ProcessId,
) -> Result<ContainerCreateBody, Error> {
    let table = config.runtimes.table();
    let mut interpreter = match &launch.runtime {
        Some(runtime) => table.get(&runtime.name)?.process.clone(),
        None => Vec::new(),
    };
    if let (Some(Packages { kind: Kind::Pip, .. }), Some(program)) = (&launch.packages, interpreter.first_mut()) {
        *program = format!("{PACKAGES}/bin/python");
    }
    // Always there: an image brings labels of its own.
    let note = config.note.as_ref().map(|note| note.display().to_string()).unwrap_or_default();
    let labels = [
        ("rgrid.job", launch.job.to_string()),
        ("rgrid.attempt", launch.attempt.to_string()),
        (SESSION, launch.session.to_string()),
        (WORKER, config.worker.to_string()),
        (RUNNER, runner.to_string()),
        (MACHINE, machine()),
        (NOTE, note),
    ];
    Ok(ContainerCreateBody {
        image: Some(image.id.clone()),
        // An image's own entry point would change what the command means.
        entrypoint: Some(vec![String::new()]),
        cmd: Some(
            handed_secrets(launch)
                .chain(interpreter.into_iter().chain(launch.command.iter().cloned()))
                .collect(),
        ),
        env: Some(environment(launch, image, setting, has_init)),
        user: Some({
            let (user, group) = setting.user_of(launch);
            format!("{user}:{group}")
        }),
        working_dir: Some(work_dir(launch)),
        // In the network of another it has the name that it has there.
        hostname: setting.host.clone().filter(|_| !config.network.as_deref().is_some_and(is_shared)),
        // An image's own check would run in the container all the while, beside the job.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        // Open until what there is to read was sent, and then at its end.
        open_stdin: Some(launch.stdin.is_some()),
        stdin_once: Some(launch.stdin.is_some()),
        attach_stdin: Some(launch.stdin.is_some()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        host_config: Some(host_config(launch, config, setting, has_init)?),
        ..ContainerCreateBody::default()
    })
}

/// A container's environment can be read by all who may ask the daemon (`docker inspect`). So a shell reads the secrets from a file,
/// and then becomes the command.
fn handed_secrets(launch: &Launch) -> impl Iterator<Item = String> {
    let script = format!(". {SECRETS} && exec \"$@\"");
    let words = ["/bin/sh".to_owned(), "-c".to_owned(), script, "rgrid".to_owned()];
    words.into_iter().filter(|_| !launch.secrets.is_empty())
}

/// Where a container's command starts.
fn work_dir(launch: &Launch) -> String {
    launch.dir.as_ref().map_or_else(|| WORK.to_owned(), |dir| format!("{WORK}/{dir}"))
}

/// Whether a network is that of the machine or of another container.
fn is_shared(network: &str) -> bool {
    network == "host" || network.starts_with("container:")
}

fn host_config(launch: &Launch, config: &Config, setting: &Setting, has_init: bool) -> Result<HostConfig, Error> {
    let memory = launch.limits.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let shm = launch.limits.shm_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let shm = shm.or(memory.map(|memory| memory / 2)).unwrap_or(setting.shm_bytes);
    let cpu = launch
        .limits
        .cpu_milli
        .map(|milli| setting.cpu_milli.map_or(milli, |most| milli.min(most)));
    Ok(HostConfig {
        mounts: Some(mounts(launch)?),
        memory,
        // Equal to the memory: no swap.
        memory_swap: memory,
        // Nothing means 64 MiB.
        shm_size: (shm > 0).then_some(shm),
        ulimits: Some(limits(launch, setting)),
        nano_cpus: cpu.map(|milli| i64::from(milli) * 1_000_000),
        pids_limit: Some(config.pids),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(true),
        // Whatever the daemon's own defaults are: no other container joins, and none begins again by itself.
        ipc_mode: Some("private".to_owned()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // Where the machine runs out of memory, a job goes before the daemon, the runner and its neighbours.
        oom_score_adj: Some(OOM_SCORE),
        init: Some(has_init),
        network_mode: config.network.clone(),
        // The output is read as it comes. The copy that Docker stores is for a runner that restarts, and bounded: 192 MiB at most
        // while the container is there.
        log_config: Some(HostConfigLogConfig {
            typ: Some("local".to_owned()),
            config: Some(
                [("max-size", "64m"), ("max-file", "3"), ("compress", "false")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
        }),
        ..HostConfig::default()
    })
}

/// The runner's own limits; but what a program with secrets had in its memory is written to no file.
fn limits(launch: &Launch, setting: &Setting) -> Vec<ResourcesUlimits> {
    let mut limits = setting.ulimits.clone();
    if !launch.secrets.is_empty() {
        limits.retain(|limit| limit.name.as_deref() != Some("core"));
        limits.push(ResourcesUlimits {
            name: Some("core".to_owned()),
            soft: Some(0),
            hard: Some(0),
        });
    }
    limits
}

fn mounts(launch: &Launch) -> Result<Vec<Mount>, Error> {
    let mut mounts = vec![
        mount(WORK, &launch.work_dir)?,
        mount("/tmp", &launch.scratch_dir)?,
        mount("/var/tmp", &launch.scratch_dir)?,
    ];
    if let Some(packages) = &launch.packages {
        mounts.push(Mount {
            read_only: Some(true),
            ..mount(PACKAGES, &packages.dir)?
        });
    }
    if !launch.secrets.is_empty() {
        mounts.push(Mount {
            read_only: Some(true),
            ..mount(SECRETS, &secrets::file(&launch.work_dir))?
        });
    }
    Ok(mounts)
}

/// `/tmp` is on the disk, like the job's other files: a tmpfs would eat the worker's memory.
fn mount(target: &str, source: &Path) -> Result<Mount, Error> {
    let source = source
        .to_str()
        .ok_or_else(|| Error::Broken(format!("Docker accepts no directory whose path is not UTF-8: {}", source.display())))?;
    Ok(Mount {
        target: Some(target.to_owned()),
        source: Some(source.to_owned()),
        typ: Some(MountType::BIND),
        bind_options: Some(MountBindOptions {
            // Nothing below is a mount, and nothing that becomes one is to be seen inside.
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    })
}

/// The variables that a command gets in addition to the image's. What the image sets stays as it is, but for the places that must be
/// writable: the image's own are not.
fn environment(launch: &Launch, image: &Image, setting: &Setting, has_init: bool) -> Vec<String> {
    let directory = work_dir(launch);
    let mut variables = HashMap::from([("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("PWD", directory.as_str())]);
    let has = |name: &str| image.variables.contains(name);
    let user = match setting.user_of(launch).0 {
        0 => "root",
        NOBODY => "nobody",
        _ => "rgrid",
    };
    let usual = [
        // A user that the image does not know has no name otherwise, and programs fail that ask for it.
        ("USER", user),
        ("LOGNAME", user),
        ("PYTHONUNBUFFERED", "1"),
        // Compiled modules are nobody's outputs.
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    variables.extend(usual.into_iter().filter(|(name, _)| !has(name)));
    if !["LANG", "LC_ALL", "LC_CTYPE"].into_iter().any(has) {
        variables.insert("LANG", "C.UTF-8");
    }
    if has_init {
        // What asks a job to end asks all of it, not its first process alone.
        variables.insert("TINI_KILL_PROCESS_GROUP", "1");
    }
    variables.extend(launch.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let path = variables.get("PATH").copied().unwrap_or(&image.path);
    let packages = launch
        .packages
        .as_ref()
        .map(|packages| packages.variables(PACKAGES, path))
        .unwrap_or_default();
    variables.extend(packages.iter().map(|(name, value)| (*name, value.as_str())));
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Writes the job's secrets, and gives its directories to the user it runs as. Returns whether their files changed hands.
///
/// # Errors
/// [`Error::Broken`] if that fails.
pub(super) async fn hand_over(launch: &Launch, setting: &Setting) -> Result<bool, Error> {
    let cannot = |error: std::io::Error| Error::Broken(format!("the job's secrets could not be written for its container: {error}"));
    let own = (!launch.secrets.is_empty()).then(|| secrets::write(&launch.work_dir, &launch.secrets));
    let own = own.transpose().map_err(cannot)?;
    if !setting.hand_over {
        return Ok(false);
    }
    let (user, group) = setting.user_of(launch);
    if let Some(file) = own {
        std::os::unix::fs::lchown(file, Some(user), Some(group)).map_err(cannot)?;
    }
    let directories = [launch.work_dir.clone(), launch.scratch_dir.clone()];
    let given = tokio::task::spawn_blocking(move || users::give(&directories, user, group)).await;
    given
        .map_err(|error| Error::Broken(error.to_string()))?
        .map_err(|error| Error::Broken(format!("the job's directories could not be given to the user it runs as: {error}")))?;
    Ok(true)
}

#[cfg(test)]
mod tests;
