//! Signals are heard until the program ends, whatever it does.

use std::{
    fs,
    io::{BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::{
    grid::{Grid, Part},
    process::signal_to,
    wire::{Way, Wire},
};
use rustix::process::Signal;

use super::here::{Came, Here};

/// As long as nothing takes that is not waiting for something.
const PROMPT: Duration = Duration::from_secs(20);
/// Larger than what comes over before the rest is held back.
const LARGE: usize = 24 << 20;
/// From so many bytes on, the CLI keeps what came of a file.
const WORTH_KEEPING: u64 = 1 << 20;

const SLOW: &str = "import time\nprint('begun', flush=True)\ntime.sleep(300)\n";

async fn wired(grid: &Grid) -> Result<Wire> {
    let [(_, url), _] = grid.access();
    Wire::to(url.trim_start_matches("http://")).await
}

fn begin(mut command: Command) -> Result<Child> {
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Waits for a program's end, which must come soon.
fn end(mut child: Child) -> Result<Came> {
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        ensure!(begun.elapsed() < PROMPT, "it goes on {PROMPT:?} after a signal");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child.wait_with_output()?.into())
}

/// Reads lines until one holds this.
fn read_until(from: &mut impl std::io::BufRead, words: &str) -> Result<()> {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        ensure!(from.read_line(&mut line)? > 0, "it ended before `{words}`");
    }
    Ok(())
}

/// The sizes of what came of files that are not whole, in bytes.
fn parts(here: &Here) -> Result<Vec<u64>> {
    let entries = fs::read_dir(here.path())?.collect::<std::io::Result<Vec<_>>>()?;
    let unfinished = entries
        .iter()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
    unfinished.map(|entry| Ok(entry.metadata()?.len())).collect()
}

/// Signals a command that has some of a large output while the rest is held back, and waits for its end.
async fn signal_while_it_comes(grid: &Grid, here: &Here, wire: &Wire, mut command: Command, signal: Signal) -> Result<Came> {
    let half = wire.passed(Way::Back) + (4 << 20);
    wire.hold_at(Way::Back, half);
    let child = begin({
        command.env("RGRID_URL", wire.url()).env("RGRID_COMPRESS", "false");
        command
    })?;
    wire.reaches(Way::Back, half).await?;
    grid.eventually("as much of it is written as is worth keeping", async || {
        let sizes = parts(here).ok()?;
        sizes.iter().any(|size| *size >= WORTH_KEEPING).then_some(())
    })
    .await?;
    signal_to(child.id(), signal)?;
    let came = end(child);
    wire.let_go(Way::Back);
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_outputs_are_saved_stops_cleanly_and_the_rest_can_be_fetched() -> Result<()> {
    let grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    let makes = format!("import os\nopen('large.bin', 'wb').write(os.urandom({LARGE}))\nopen('small.txt', 'w').write('small')\n");
    here.write("make.py", makes)?;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let came = signal_while_it_comes(&grid, &here, &wire, here.command(&["run", "make.py"]), signal).await?;
        assert_eq!(came.code, code, "{}", came.err());
        assert!(came.err().contains("`rgrid download "), "{}", came.err());
        assert!(!here.path().join("large.bin").exists(), "it is whole or not there");
        assert_eq!(parts(&here)?.len(), 1, "what came of the large one is kept, and nothing else");

        // So it is with `rgrid download`, which then brings the rest.
        let came = signal_while_it_comes(&grid, &here, &wire, here.command(&["download", "last"]), signal).await?;
        assert_eq!((came.code, parts(&here)?.len()), (code, 1), "{}", came.err());
        let came = here.rgrid(&["download", "last"])?;
        assert_eq!((came.code, parts(&here)?.len()), (0, 0), "{}", came.err());
        assert_eq!((here.read("large.bin")?.len(), here.read("small.txt")?), (LARGE, b"small".to_vec()));
        fs::remove_file(here.path().join("large.bin"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_run_whose_cancellation_nobody_answers() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", SLOW)?;
    let mut child = begin(here.command(&["run", "slow.py"]))?;
    let mut out = BufReader::new(child.stdout.take().context("no output")?);
    read_until(&mut out, "begun")?;
    grid.kill(Part::Api)?;
    let mut err = BufReader::new(child.stderr.take().context("no errors")?);
    signal_to(child.id(), Signal::INT)?;
    // It is being cancelled, over and over.
    read_until(&mut err, "Retrying")?;
    signal_to(child.id(), Signal::TERM)?;
    assert_eq!(end(child)?.code, 143);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_following_of_a_batch_whose_cancellation_nobody_answers() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("slow.py", SLOW)?;
    let mut child = begin(here.command(&["run", "--array", "1-2", "slow.py"]))?;
    let mut err = BufReader::new(child.stderr.take().context("no errors")?);
    read_until(&mut err, "is submitted")?;
    grid.kill(Part::Api)?;
    signal_to(child.id(), Signal::INT)?;
    read_until(&mut err, "Retrying")?;
    signal_to(child.id(), Signal::INT)?;
    assert_eq!(end(child)?.code, 130);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_before_the_answer_says_that_there_may_be_a_job() -> Result<()> {
    let mut grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    (0..4).for_each(|_| wire.lose_answer_to("POST /v1/jobs?"));
    let mut run = here.command(&["run", "--program", "sleep", "300"]);
    let child = begin({
        run.env("RGRID_URL", wire.url());
        run
    })?;
    grid.eventually("an answer is lost", async || (wire.lost() > 0).then_some(()))
        .await?;
    grid.kill(Part::Api)?;
    signal_to(child.id(), Signal::TERM)?;
    let came = end(child)?;
    assert_eq!(came.code, 143, "{}", came.err());
    let err = came.err();
    let status = err
        .split("`rgrid ")
        .nth(1)
        .and_then(|rest| rest.split('`').next())
        .context(err.clone())?;
    grid.run(Part::Api)?;
    let words: Vec<&str> = status.split(' ').collect();
    grid.api_answers().await?;
    let told = here.rgrid(&words)?;
    assert_eq!(told.code, 3, "it is accepted and not over: {}{}", told.out(), told.err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_standard_input_is_read_leaves_nothing_behind() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("read.py", "import sys\nprint(len(sys.stdin.read()))\n")?;
    let temporary = here.path().join("tmp");
    fs::create_dir(&temporary)?;
    let mut run = here.command(&["run", "--no-outputs", "read.py"]);
    run.env("TMPDIR", &temporary).stdin(Stdio::piped());
    let mut child = begin(run)?;
    let mut stdin = child.stdin.take().context("no input")?;
    stdin.write_all(&[b'x'; 200_000])?;
    let mut err = BufReader::new(child.stderr.take().context("no errors")?);
    read_until(&mut err, "reading standard input")?;
    signal_to(child.id(), Signal::INT)?;
    assert_eq!(end(child)?.code, 130);
    assert_eq!(fs::read_dir(&temporary)?.count(), 0);

    // And what is read to its end arrives as it is.
    let mut run = here.command(&["run", "--no-outputs", "read.py"]);
    run.env("TMPDIR", &temporary).stdin(Stdio::piped());
    let mut child = begin(run)?;
    child.stdin.take().context("no input")?.write_all(&[b'x'; 200_000])?;
    let mut said = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut said)?;
    assert_eq!((said.as_str(), child.wait()?.code()), ("200000\n", Some(0)));
    Ok(())
}
