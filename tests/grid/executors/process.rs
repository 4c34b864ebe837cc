//! Plain processes: what they see, what they say, how they end.

use std::os::unix::fs::PermissionsExt;

use runner::executor::{Error, Executor as _, Exit, Running};
use tokio::io::AsyncReadExt as _;

use super::{Place, config, finish, line, processes, run};

#[tokio::test]
async fn exit_codes_and_signals_are_kept() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    assert_eq!(run(&process, place.script("exit 0")).await?.ended.exit, Exit::Code(0));
    assert_eq!(run(&process, place.script("exit 77")).await?.ended.exit, Exit::Code(77));
    assert_eq!(run(&process, place.script("kill -SEGV $$")).await?.ended.exit, Exit::Signal(11));
    // A real-time signal, which many a library does not know.
    assert_eq!(run(&process, place.script("kill -40 $$")).await?.ended.exit, Exit::Signal(40));
    Ok(())
}

#[tokio::test]
async fn the_end_may_be_asked_for_again_and_tells_what_was_used() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let running = process
        .launch(place.script("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"))
        .await?;
    let ended = running.handle.wait().await?;
    assert_eq!(running.handle.wait().await?, ended);
    assert!(ended.cpu.is_some_and(|cpu| cpu.as_millis() > 10), "{ended:?}");
    assert!(ended.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn the_two_outputs_are_kept_apart_and_input_is_empty() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let outcome = run(&process, place.script("echo out; echo err >&2; cat; echo end")).await?;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\nend\n", "err\n"));
    Ok(())
}

#[tokio::test]
async fn output_comes_while_the_command_runs() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    // It goes on only when what it said was heard.
    let mut running = process
        .launch(place.script("echo first; while [ ! -e go ]; do sleep 0.01; done; echo second"))
        .await?;
    assert_eq!(line(&mut running.stdout).await?, "first");
    std::fs::write(place.work().join("go"), "")?;
    assert_eq!(finish(running).await?.stdout, "second\n");
    Ok(())
}

#[tokio::test]
async fn two_hundred_megabytes_pass_without_being_held() -> anyhow::Result<()> {
    const SIZE: u64 = 200_000_000;
    let (process, place) = (processes().await?, Place::new()?);
    // One endless line of zeros.
    let Running { mut stdout, handle, .. } = process.launch(place.script(&format!("head -c {SIZE} /dev/zero"))).await?;
    let (mut chunk, mut total) = (vec![0; 64 * 1024], 0);
    loop {
        match stdout.read(&mut chunk).await? {
            0 => break,
            read => {
                assert!(chunk[..read].iter().all(|&byte| byte == 0));
                total += read as u64;
            }
        }
    }
    assert_eq!(total, SIZE);
    assert_eq!(handle.wait().await?.exit, Exit::Code(0));
    Ok(())
}

#[tokio::test]
async fn what_is_not_read_holds_up_the_command_and_takes_no_memory() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let running = process.launch(place.script("head -c 10000000 /dev/zero; touch done")).await?;
    let unread = tokio::time::timeout(std::time::Duration::from_millis(300), running.handle.wait()).await;
    assert!(unread.is_err(), "it ended although nobody read");
    assert!(!place.work().join("done").exists());
    assert_eq!(finish(running).await?.stdout.len(), 10_000_000);
    assert!(place.work().join("done").exists());
    Ok(())
}

#[tokio::test]
async fn the_environment_is_lean_and_holds_nothing_of_the_runner_s() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let mut launch = place.launch(&["env"]);
    launch.env.insert("RGRID_JOB_ID".to_owned(), "j".to_owned());
    launch.env.insert("LANG".to_owned(), "de_DE.UTF-8".to_owned());
    let scratch = launch.scratch_dir.display().to_string();
    let outcome = run(&process, launch).await?;
    let mut names: Vec<&str> = outcome.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    names.retain(|&name| !matches!(name, "USER" | "LOGNAME"));
    // The test has many more; a runner has its keys.
    assert_eq!(
        names,
        [
            "HOME",
            "LANG",
            "PATH",
            "PWD",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONUNBUFFERED",
            "RGRID_JOB_ID",
            "RGRID_PROCESS_OF",
            "TMPDIR"
        ]
    );
    assert!(outcome.stdout.contains(&format!("HOME={scratch}\n")) && outcome.stdout.contains(&format!("TMPDIR={scratch}\n")));
    assert!(outcome.stdout.contains("LANG=de_DE.UTF-8\n"), "the job's own variables win");
    Ok(())
}

#[tokio::test]
async fn nothing_of_the_runner_is_open_in_the_command() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let outcome = run(&process, place.launch(&["ls", "/proc/self/fd"])).await?;
    // The fourth one is the directory that is being listed.
    assert_eq!(outcome.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    Ok(())
}

#[tokio::test]
async fn the_command_runs_in_its_work_directory_with_its_arguments_exactly() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let launch = place.launch(&[
        "/bin/sh",
        "-c",
        r#"pwd; for a in "$@"; do printf '<%s>' "$a"; done"#,
        "sh",
        "",
        "a b",
        "-x",
        "line\nbreak",
        "ü",
    ]);
    let outcome = run(&process, launch).await?;
    let work = place.work().canonicalize()?;
    assert_eq!(outcome.stdout, format!("{}\n<><a b><-x><line\nbreak><ü>", work.display()));
    Ok(())
}

#[tokio::test]
async fn a_megabyte_of_arguments_arrives() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let long = "x".repeat(100_000);
    let mut command = vec!["/bin/sh", "-c", "echo $# ${#1}", "sh"];
    command.extend(std::iter::repeat_n(long.as_str(), 10));
    assert_eq!(run(&process, place.launch(&command)).await?.stdout, "10 100000\n");
    Ok(())
}

#[tokio::test]
async fn a_runtime_s_interpreter_gets_the_script() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    std::fs::write(
        place.work().join("hello.py"),
        "import sys; print('hello', sys.argv[1:]); sys.exit(3)",
    )?;
    let mut launch = place.launch(&["hello.py", "--flag"]);
    launch.runtime = Some("python".parse()?);
    let running = process.launch(launch).await?;
    assert!(
        running.environment.as_deref().is_some_and(|path| path.ends_with("/python3")),
        "{:?}",
        running.environment
    );
    let outcome = finish(running).await?;
    assert_eq!((outcome.stdout.as_str(), outcome.ended.exit), ("hello ['--flag']\n", Exit::Code(3)));
    // The version that it is, by its first two parts.
    let place = Place::new()?;
    std::fs::write(place.work().join("v.py"), "import platform; print(platform.python_version())")?;
    let mut launch = place.launch(&["v.py"]);
    launch.runtime = Some("python".parse()?);
    let version = run(&process, launch.clone()).await?.stdout;
    let short: Vec<&str> = version.trim().split('.').take(2).collect();
    launch.runtime = Some(format!("python:{}", short.join(".")).parse()?);
    assert_eq!(run(&process, launch).await?.stdout, version);
    Ok(())
}

#[tokio::test]
async fn a_submitted_program_is_found_in_the_work_directory() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let tool = place.work().join("tool");
    std::fs::write(&tool, "#!/bin/sh\necho $0")?;
    std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o755))?;
    let outcome = run(&process, place.launch(&["./tool"])).await?;
    assert!(outcome.stdout.ends_with("/tool\n"), "{}", outcome.stdout);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_what_to_do() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let write = |name: &str, content: &[u8], mode: u32| {
        let file = place.work().join(name);
        std::fs::write(&file, content).and_then(|()| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)))
    };
    write("plain", b"#!/bin/sh\n", 0o644)?;
    write("strange", b"#!/no/such/interpreter\n", 0o755)?;
    write("garbage", b"\x00\x01\x02", 0o755)?;
    for (command, sentence) in [
        ("no-such-program", "not found on the PATH of this worker"),
        ("./missing", "not in the job's work directory"),
        ("/no/such", "does not exist on this worker"),
        ("./plain", "chmod +x"),
        ("./strange", "/no/such/interpreter"),
        ("./garbage", "neither a program for this machine"),
    ] {
        let error = refusal(&process, place.launch(&[command])).await?;
        assert!(
            matches!(&error, Error::Unrunnable(said) | Error::NotFound(said) if said.contains(sentence)),
            "{command}: {error}"
        );
    }
    let mut launch = place.launch(&["x.js"]);
    launch.runtime = Some("python:2.1".parse()?);
    let refused = refusal(&process, launch.clone()).await?.to_string();
    assert!(refused.contains("no runtime `python:2.1`: `python3` is 3."), "{refused}");
    launch.runtime = Some("cobol".parse()?);
    assert!(refusal(&process, launch).await?.to_string().contains("knows no runtime `cobol`"));
    Ok(())
}

#[tokio::test]
async fn an_interpreter_that_the_worker_lacks_is_named() -> anyhow::Result<()> {
    let place = Place::new()?;
    let process = runner::executor::Process::start(runner::executor::process::Config {
        path: place.work().into(),
        ..config()?
    })
    .await?;
    let mut launch = place.launch(&["x.py"]);
    launch.runtime = Some("python".parse()?);
    let error = refusal(&process, launch).await?.to_string();
    assert!(error.contains("no `python3`") && error.contains("--executor docker"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_command_may_delete_its_directory() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let outcome = run(&process, place.script(r#"rm -rf "$(pwd)"; echo still here"#)).await?;
    assert_eq!((outcome.stdout.as_str(), outcome.ended.exit), ("still here\n", Exit::Code(0)));
    assert!(!place.work().exists());
    // And the next one says that it is gone, and does not hang.
    let error = refusal(&process, place.script("true")).await?;
    assert!(matches!(&error, Error::Broken(said) if said.contains("is gone")), "{error}");
    Ok(())
}

/// Why a launch, or the wait after it, was refused.
async fn refusal(process: &runner::executor::Process, launch: runner::executor::Launch) -> anyhow::Result<Error> {
    match process.launch(launch).await {
        Err(error) => Ok(error),
        Ok(running) => match running.handle.wait().await {
            Err(error) => Ok(error),
            Ok(ended) => anyhow::bail!("it ran: {ended:?}"),
        },
    }
}

#[tokio::test]
async fn a_command_starts_with_no_signal_held_back_and_ends_when_it_is_asked_to() -> anyhow::Result<()> {
    let (process, place) = (processes().await?, Place::new()?);
    let outcome = run(&process, place.launch(&["/bin/cat", "/proc/self/status"])).await?;
    let mask = |name: &str| {
        let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap_or_default().trim(), 16)
    };
    assert_eq!(mask("SigBlk:")?, 0, "{}", outcome.stdout);
    // HUP, INT, QUIT, PIPE and TERM: bits 1, 2, 3, 13 and 15, counted from one.
    assert_eq!(mask("SigIgn:")? & 0x5007, 0, "{}", outcome.stdout);

    let mut running = process.launch(place.script("echo begun; exec sleep 1000")).await?;
    assert_eq!(line(&mut running.stdout).await?, "begun");
    running.handle.terminate().await;
    assert_eq!(finish(running).await?.ended.exit, Exit::Signal(15));
    Ok(())
}
