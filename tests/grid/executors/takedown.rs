//! Plain processes: nothing outlives its command, its runner or its helper.

use std::{io::BufRead as _, process::Stdio, time::Duration};

use runner::executor::{Error, Executor as _, Exit};

use super::{Place, eventually, finish, line, lives, processes, run};

#[tokio::test]
async fn what_a_command_leaves_behind_dies_with_it() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    // In its group, in a session of its own, as a grandchild of one, and with an environment that was wiped. All hold the pipes.
    let script = "sleep 300 & echo $!
        setsid sleep 301 & echo $!
        setsid sh -c 'sleep 302 & echo $!; exec sleep 303' & echo $!
        setsid env -i sleep 304 & echo $!
        sleep 0.2";
    let outcome = run(&process, place.script(script)).await?;
    let left: Vec<i32> = outcome.stdout.lines().map(str::parse).collect::<Result<_, _>>()?;
    assert_eq!(left.len(), 5);
    assert_eq!(left.into_iter().filter(|&pid| lives(pid)).collect::<Vec<_>>(), [] as [i32; 0]);
    assert_eq!(outcome.ended.exit, Exit::Code(0));
    Ok(())
}

#[tokio::test]
async fn a_command_s_end_leaves_another_s_children_alone() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    // The daemon's parent is gone: it is the helper's child from then on, while its job goes on. The second is unmarked too.
    let script = "(setsid sleep 300 & echo $!); (setsid env -i sleep 301 & echo $!); while [ ! -e go ]; do sleep 0.01; done";
    let mut long = process.launch(place.script(script)).await?;
    let daemons = [line(&mut long.stdout).await?.parse()?, line(&mut long.stdout).await?.parse()?];
    let other = Place::new()?;
    let outcome = run(&process, other.script("sleep 300 & echo $!")).await?;
    assert!(!lives(outcome.stdout.trim().parse()?));
    assert!(daemons.into_iter().all(lives), "the end of one job killed a process of another");
    std::fs::write(place.work().join("go"), "")?;
    finish(long).await?;
    assert!(!daemons.into_iter().any(lives));
    Ok(())
}

#[tokio::test]
async fn a_command_is_asked_and_then_made_to_end() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let running = process.launch(place.script("sleep 300")).await?;
    running.handle.terminate().await;
    assert_eq!(finish(running).await?.ended.exit, Exit::Signal(15));

    let mut stubborn = process
        .launch(place.script("trap '' TERM; echo ready; (trap '' TERM; sleep 300) & while :; do sleep 1; done"))
        .await?;
    assert_eq!(line(&mut stubborn.stdout).await?, "ready");
    stubborn.handle.terminate().await;
    let asked = tokio::time::timeout(Duration::from_millis(200), stubborn.handle.wait()).await;
    assert!(asked.is_err(), "it ended although it ignores the signal");
    stubborn.handle.kill().await;
    assert_eq!(finish(stubborn).await?.ended.exit, Exit::Signal(9));
    Ok(())
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_is_killed() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let mut running = process.launch(place.script("echo $$; exec sleep 300")).await?;
    let pid = line(&mut running.stdout).await?.parse()?;
    drop(running);
    eventually("the command is dead", || !lives(pid)).await?;
    Ok(())
}

#[tokio::test]
async fn commands_end_with_their_executor() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let mut running = process.launch(place.script("echo $$; exec setsid sleep 300")).await?;
    let pid = line(&mut running.stdout).await?.parse()?;
    assert!(process.close(Duration::from_secs(10)).await);
    assert!(!lives(pid));
    assert!(matches!(running.handle.wait().await, Err(Error::Broken(_))));
    Ok(())
}

#[tokio::test]
async fn a_killed_helper_takes_its_commands_along_and_is_replaced() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let mut running = process
        .launch(place.script("echo $PPID; setsid sleep 300 & echo $!; echo $$; exec sleep 301"))
        .await?;
    let helper = line(&mut running.stdout).await?.parse()?;
    let pids = [line(&mut running.stdout).await?.parse()?, line(&mut running.stdout).await?.parse()?];
    kill(helper)?;
    let error = running.handle.wait().await;
    assert!(
        matches!(&error, Err(Error::Broken(said)) if said.contains("spawn helper")),
        "{error:?}"
    );
    assert!(!pids.into_iter().any(lives), "a command outlived the helper");
    assert_eq!(run(&process, place.script("exit 5")).await?.ended.exit, Exit::Code(5));
    Ok(())
}

#[tokio::test]
async fn a_killed_runner_takes_its_commands_along_within_a_second() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut runner = std::process::Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "executors::takedown::a_runner_that_gets_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("PLACE", place.0.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pids = Vec::new();
    if let Some(stdout) = runner.stdout.take() {
        for line in std::io::BufReader::new(stdout).lines() {
            // libtest writes its own words, also on the same line.
            let line = line?;
            pids.extend(line.split_once("pid ").and_then(|(_, pid)| pid.parse::<i32>().ok()));
            if pids.len() == 2 {
                break;
            }
        }
    }
    assert!(pids.len() == 2 && pids.iter().copied().all(lives), "{pids:?}");
    runner.kill()?;
    let took = eventually("the commands are dead", || !pids.iter().copied().any(lives)).await?;
    runner.wait()?;
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "not a test: the runner that another test kills"]
async fn a_runner_that_gets_killed() -> anyhow::Result<()> {
    let Some(directory) = std::env::var_os("PLACE") else {
        return Ok(());
    };
    let (process, place) = (processes().await?, Place::new()?);
    let mut launch = place.script("setsid sleep 300 & echo $!; echo $$; trap '' TERM; while :; do sleep 1; done");
    launch.work_dir = std::path::PathBuf::from(directory).join("work");
    let mut running = process.launch(launch).await?;
    for _ in 0..2 {
        println!("\npid {}", line(&mut running.stdout).await?);
    }
    running.handle.wait().await?;
    Ok(())
}

fn kill(pid: i32) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(|| anyhow::anyhow!("no process {pid}"))?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
}
