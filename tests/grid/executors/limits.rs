//! Plain processes: memory and CPUs.

use std::time::Instant;

use runner::executor::{Executor as _, Exit, Limits, Process, process::Config};

use super::{Place, config, eventually, line, processes, run};

const MIB: u64 = 1 << 20;

/// Takes memory without end, in a grandchild.
const HOG: &str = "tail /dev/zero; echo got over it; exit 7";

fn memory(bytes: u64) -> Limits {
    Limits {
        memory_bytes: Some(bytes),
        cpu_milli: None,
        shm_bytes: None,
    }
}

async fn sampling() -> anyhow::Result<Process> {
    Ok(Process::start(Config {
        cgroups: false,
        ..config()?
    })
    .await?)
}

#[tokio::test]
async fn too_much_memory_is_told_apart_from_a_failure() -> anyhow::Result<()> {
    for process in [processes().await?, sampling().await?] {
        let place = Place::new()?;
        let mut launch = place.script(HOG);
        launch.limits = memory(64 * MIB);
        let outcome = run(&process, launch).await?;
        assert_eq!(outcome.ended.exit, Exit::OutOfMemory, "{}: {outcome:?}", process.limits());
    }
    Ok(())
}

#[tokio::test]
async fn what_stays_below_its_limit_is_not_touched() -> anyhow::Result<()> {
    for process in [processes().await?, sampling().await?] {
        let place = Place::new()?;
        // Reserves a gigabyte of addresses, as Node does, and uses little; and runs long enough to be looked at.
        let mut launch = place.launch(&[
            "-c",
            "import mmap, time; m = mmap.mmap(-1, 1 << 30); time.sleep(0.5); print('fine')",
        ]);
        launch.runtime = Some("python".parse()?);
        launch.limits = memory(64 * MIB);
        let outcome = run(&process, launch).await?;
        assert_eq!(
            (outcome.ended.exit, outcome.stdout.as_str()),
            (Exit::Code(0), "fine\n"),
            "{}: {outcome:?}",
            process.limits()
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_failure_of_a_limited_command_is_a_failure() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let mut launch = place.script("exit 137");
    launch.limits = Limits {
        memory_bytes: Some(256 * MIB),
        cpu_milli: Some(1000),
        shm_bytes: None,
    };
    assert_eq!(run(&process, launch).await?.ended.exit, Exit::Code(137));
    Ok(())
}

#[tokio::test]
async fn the_memory_of_a_family_is_counted_together() -> anyhow::Result<()> {
    let (process, place) = (sampling().await?, Place::new()?);
    // Each is below the limit, one has left the group.
    let hold = "import time; b = bytearray(40 << 20); time.sleep(60)";
    let mut launch = place.script(&format!("python3 -c '{hold}' & setsid python3 -c '{hold}' & wait"));
    launch.limits = memory(64 * MIB);
    assert_eq!(run(&process, launch).await?.ended.exit, Exit::OutOfMemory);
    Ok(())
}

#[tokio::test]
async fn a_cpu_limit_holds_or_the_runner_says_that_it_does_not() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    if process.limits().contains("CPUs not limited") {
        return Ok(());
    }
    let mut launch = place.launch(&[
        "-c",
        "import time; end = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass",
    ]);
    launch.runtime = Some("python".parse()?);
    launch.limits.cpu_milli = Some(250);
    let begun = Instant::now();
    let ended = run(&process, launch).await?.ended;
    let share = ended.cpu.unwrap_or_default().as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(ended.exit == Exit::Code(0) && share < 0.35, "it got {share:.2} of a CPU");
    Ok(())
}

#[tokio::test]
async fn a_limited_command_leaves_no_control_group_behind() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let mut launch = place.script("cat /proc/self/cgroup; sleep 300");
    launch.limits = memory(64 * MIB);
    let mut running = process.launch(launch).await?;
    let mut groups = Vec::new();
    if process.limits().contains("memory limited by control groups") {
        while groups.is_empty() {
            let line = line(&mut running.stdout).await?;
            groups.extend(line.split_once("/rgrid/").map(|(_, name)| name.to_owned()));
        }
    }
    let there = |name: &str| glob_cgroups().is_ok_and(|found| found.iter().any(|group| group.ends_with(name)));
    assert!(groups.iter().all(|name| there(name)), "{groups:?}");
    // Not even if nobody waits for it.
    drop(running);
    eventually("the group is gone", || !groups.iter().any(|name| there(name))).await?;
    Ok(())
}

/// The groups below every `rgrid` in the hierarchies' roots.
fn glob_cgroups() -> std::io::Result<Vec<std::path::PathBuf>> {
    let roots = std::fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path());
    let roots = roots.chain(["/sys/fs/cgroup".into()]).map(|root| root.join("rgrid"));
    Ok(roots
        .filter_map(|root| std::fs::read_dir(root).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect())
}
