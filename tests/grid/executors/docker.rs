//! Containers. These tests need a Docker daemon and the image `rgrid/python:3`, and fail without.

use std::{
    collections::HashSet,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use runner::executor::{
    Docker, Error, Executor as _, Executors, Exit, Launch, Limits, Noop, Preference, RuntimeTable, Want, docker::Config,
};

use super::{Place, finish, line, processes, run};

const MIB: u64 = 1 << 20;

async fn docker(change: impl FnOnce(&mut Config)) -> anyhow::Result<Docker> {
    let mut config = Config::new("tests".parse()?, RuntimeTable::default().into());
    change(&mut config);
    let docker = Docker::connect(config)
        .await
        .context("these tests need Docker: `make setup` starts it")?;
    // What tests left that failed.
    docker.sweep(&HashSet::new()).await?;
    Ok(docker)
}

/// Waits until the test's containers are removed.
async fn close(docker: &Docker) -> anyhow::Result<()> {
    anyhow::ensure!(docker.close(Duration::from_secs(30)).await, "a container was not removed");
    Ok(())
}

/// A script in the local image.
fn script(place: &Place, script: &str) -> Launch {
    Launch {
        image: Some("rgrid/python:3".to_owned()),
        ..place.launch(&["sh", "-c", script])
    }
}

#[tokio::test]
async fn exit_codes_signals_and_outputs_are_those_of_the_command() -> anyhow::Result<()> {
    let (docker, place) = (docker(|_| ()).await?, Place::new()?);
    let running = docker.launch(script(&place, "echo out; echo err >&2; exit 42")).await?;
    let environment = running.environment.clone().unwrap_or_default();
    assert!(environment.starts_with("rgrid/python:3@sha256:"), "{environment}");
    let outcome = finish(running).await?;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.ended.exit, Exit::Code(42));
    assert_eq!(run(&docker, script(&place, "kill -SEGV $$")).await?.ended.exit, Exit::Signal(11));
    close(&docker).await
}

#[tokio::test]
async fn a_runtime_finds_its_image_and_the_files_come_back() -> anyhow::Result<()> {
    let (docker, place) = (docker(|_| ()).await?, Place::new()?);
    std::fs::create_dir(place.work().join("data"))?;
    std::fs::write(place.work().join("data/in.txt"), "content")?;
    std::fs::write(
        place.work().join("main.py"),
        "import os; os.makedirs('out'); open('out/copy.txt', 'w').write(open('data/in.txt').read()); print(os.getcwd())",
    )?;
    let mut launch = place.launch(&["main.py"]);
    launch.runtime = Some("python".parse()?);
    let outcome = run(&docker, launch).await?;
    assert_eq!(
        (outcome.stdout.as_str(), outcome.ended.exit),
        ("/work\n", Exit::Code(0)),
        "{}",
        outcome.stderr
    );
    assert_eq!(std::fs::read_to_string(place.work().join("out/copy.txt"))?, "content");
    assert_ne!(std::fs::metadata(place.work().join("out/copy.txt"))?.uid(), 0);
    close(&docker).await
}

#[tokio::test]
async fn a_container_may_do_little() -> anyhow::Result<()> {
    let (docker, place) = (docker(|_| ()).await?, Place::new()?);
    let probe = "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t'
        touch /usr/x 2>&1; touch /tmp/x && touch /work/x && touch $HOME/y && echo writable
        ls /var/run/docker.sock 2>&1; cat /proc/1/comm";
    let said = run(&docker, script(&place, probe)).await?.stdout;
    assert!(!said.starts_with("0\n"), "{said}");
    for expected in [
        "CapBnd:0000000000000000",
        "CapEff:0000000000000000",
        "NoNewPrivs:1",
        "Read-only file system",
        "writable",
        "No such file or directory",
        "docker-init",
    ] {
        assert!(said.contains(expected), "no `{expected}` in:\n{said}");
    }
    close(&docker).await
}

#[tokio::test]
async fn too_much_memory_in_a_container_is_told_apart() -> anyhow::Result<()> {
    let (docker, place) = (docker(|_| ()).await?, Place::new()?);
    for hog in ["exec tail /dev/zero", "tail /dev/zero; exit 3"] {
        let mut launch = script(&place, hog);
        launch.limits = Limits {
            memory_bytes: Some(64 * MIB),
            cpu_milli: Some(500),
            shm_bytes: None,
        };
        assert_eq!(run(&docker, launch).await?.ended.exit, Exit::OutOfMemory, "{hog}");
    }
    close(&docker).await
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_container() -> anyhow::Result<()> {
    let (docker, place) = (docker(|config| config.pids = 64).await?, Place::new()?);
    let outcome = run(&docker, script(&place, "for i in $(seq 1000); do sleep 300 & done; echo survived")).await?;
    assert!(
        outcome.stderr.contains("ork") && !outcome.stdout.contains("survived"),
        "{outcome:?}"
    );
    assert_ne!(outcome.ended.exit, Exit::Code(0));
    close(&docker).await
}

#[tokio::test]
async fn a_container_is_asked_and_then_made_to_end() -> anyhow::Result<()> {
    let (docker, place) = (docker(|_| ()).await?, Place::new()?);
    let mut running = docker
        .launch(script(
            &place,
            "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done",
        ))
        .await?;
    assert_eq!(line(&mut running.stdout).await?, "ready");
    running.handle.terminate().await;
    let outcome = finish(running).await?;
    assert_eq!((outcome.stdout.as_str(), outcome.ended.exit), ("bye\n", Exit::Code(9)));

    let mut running = docker
        .launch(script(&place, "trap '' TERM; echo ready; while :; do sleep 1; done"))
        .await?;
    assert_eq!(line(&mut running.stdout).await?, "ready");
    running.handle.terminate().await;
    running.handle.kill().await;
    assert_eq!(finish(running).await?.ended.exit, Exit::Signal(9));
    close(&docker).await
}

#[tokio::test]
async fn much_output_passes_and_nothing_of_it_is_lost() -> anyhow::Result<()> {
    let (docker, place) = (docker(|_| ()).await?, Place::new()?);
    let outcome = run(
        &docker,
        script(&place, "head -c 20000000 /dev/zero | tr '\\0' x; printf %s end >&2"),
    )
    .await?;
    assert_eq!((outcome.stdout.len(), outcome.stderr.as_str()), (20_000_000, "end"));
    close(&docker).await
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_said_soon() -> anyhow::Result<()> {
    let (docker, place) = (docker(|config| config.pull_stall = Duration::from_secs(20)).await?, Place::new()?);
    let (notice, mut notices) = tokio::sync::mpsc::channel(8);
    let launch = Launch {
        // Nothing listens there, on any machine.
        image: Some("127.0.0.1:1/no/such:image".to_owned()),
        notice: Some(notice),
        ..place.launch(&["true"])
    };
    let begun = Instant::now();
    let error = docker.launch(launch).await.err().context("it was had")?;
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(
        matches!(&error, Error::Unrunnable(said) if said.contains("could not be pulled") && said.contains("docker pull")),
        "{error}"
    );
    assert_eq!(notices.recv().await.as_deref(), Some("pulling image 127.0.0.1:1/no/such:image"));

    let launch = Launch {
        image: Some("Not an image".to_owned()),
        ..place.launch(&["true"])
    };
    assert!(matches!(docker.launch(launch).await.err(), Some(Error::Unrunnable(_))));
    close(&docker).await
}

#[tokio::test]
async fn a_container_that_nobody_waits_for_is_removed() -> anyhow::Result<()> {
    let (docker, place) = (docker(|_| ()).await?, Place::new()?);
    let launch = script(&place, "echo ready; sleep 300");
    let job = launch.job;
    let mut running = docker.launch(launch).await?;
    assert_eq!(line(&mut running.stdout).await?, "ready");
    assert_eq!(containers_of(job)?, 1);
    drop(running);
    close(&docker).await?;
    assert_eq!(containers_of(job)?, 0);
    close(&docker).await
}

#[tokio::test]
async fn what_a_dead_runner_left_is_swept_and_what_a_live_one_runs_is_not() -> anyhow::Result<()> {
    let worker: bus::ids::WorkerId = format!("swept-{}", std::process::id()).parse()?;
    let (docker, place) = (docker(|config| config.worker = worker.clone()).await?, Place::new()?);
    let launch = script(&place, "echo ready; sleep 300");
    let job = launch.job;
    let mut running = docker.launch(launch).await?;
    assert_eq!(line(&mut running.stdout).await?, "ready");
    let left = || -> anyhow::Result<String> {
        let labels = [format!("rgrid.worker={worker}"), "rgrid.runner=1.1".to_owned()];
        let mut run = std::process::Command::new("docker");
        run.args(["run", "-d", "--rm"])
            .args(labels.iter().flat_map(|label| ["--label", label]));
        let output = run.args(["rgrid/python:3", "sleep", "300"]).output()?;
        anyhow::ensure!(output.status.success(), "no container was left behind");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let (left, kept) = (left()?, left()?);
    docker.sweep(&HashSet::from([kept.clone()])).await?;
    assert!(!is_there(&left)? && is_there(&kept)?);
    docker.sweep(&HashSet::new()).await?;
    assert!(!is_there(&kept)?);
    assert_eq!(containers_of(job)?, 1);
    drop(running);
    close(&docker).await
}

#[tokio::test]
async fn auto_takes_docker_where_the_runtime_s_image_is() -> anyhow::Result<()> {
    let executors = Executors {
        preference: Preference::Auto,
        docker: Ok(docker(|_| ()).await?),
        process: Ok(processes().await?),
        noop: Noop,
        runtimes: RuntimeTable::default().into(),
    };
    let (python, node) = ("python".parse()?, "node".parse()?);
    let kind = async |want| executors.choose(want).await.map(|chosen| chosen.executor.kind().to_string());
    let of = |runtime| Want {
        runtime: Some(runtime),
        ..Want::default()
    };
    assert_eq!(kind(of(&python)).await?, "docker");
    assert_eq!(kind(of(&node)).await?, "process", "no image of it is on this machine");
    assert_eq!(kind(Want::default()).await?, "process");
    let own = Want {
        executor: Some(bus::spec::ExecutorKind::Process),
        ..of(&python)
    };
    assert_eq!(kind(own).await?, "process");
    let image = Want {
        image: Some("x"),
        ..Want::default()
    };
    assert_eq!(kind(image).await?, "docker");
    Ok(())
}

fn is_there(container: &str) -> anyhow::Result<bool> {
    let inspected = std::process::Command::new("docker").args(["inspect", container]).output()?;
    Ok(inspected.status.success())
}

fn containers_of(job: bus::ids::JobId) -> anyhow::Result<usize> {
    let filter = format!("label=rgrid.job={job}");
    let listed = std::process::Command::new("docker")
        .args(["ps", "-aq", "--filter", &filter])
        .output()?;
    Ok(String::from_utf8(listed.stdout)?.lines().count())
}
