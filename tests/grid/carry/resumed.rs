//! A large file whose way breaks off, and which goes on from there.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use grid_tests::{
    grid::{Grid, Part},
    minio::Minio,
    process::signal_to,
    wire::{Cut, Way, Wire},
};
use rand::RngCore as _;
use reqwest::{Method, Response};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli::here::{Came, Here};

const MIB: u64 = 1 << 20;
/// What may be on its way when a wire is cut, and is lost: the buffers of four sockets, and of both programs.
const LOST: u64 = 14 * MIB;
/// Copies its argument.
const COPY: &str = "import shutil, sys\nshutil.copy(sys.argv[1], 'out.bin')\n";

fn noise(bytes: u64) -> Vec<u8> {
    let mut noise = vec![0; usize::try_from(bytes).expect("a size")];
    rand::rng().fill_bytes(&mut noise);
    noise
}

/// A grid's API at the other end of a wire.
async fn wired(grid: &Grid) -> Result<Wire> {
    let [(_, url), _] = grid.access();
    Wire::to(url.trim_start_matches("http://")).await
}

fn over(here: &Here, wire: &Wire, words: &[&str]) -> Command {
    let mut command = here.command(words);
    command.env("RGRID_URL", wire.url());
    command
}

/// Runs a copy of a file to its end, and looks whether it is one.
fn copies(here: &Here, mut command: Command, content: &[u8]) -> Result<Came> {
    let came: Came = command.output()?.into();
    ensure!(came.code == 0, "{}", came.err());
    ensure!(here.read("out.bin")? == content, "the output is another");
    Ok(came)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_where_the_wire_was_cut_both_ways() -> Result<()> {
    let grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    let content = noise(96 * MIB);
    here.write("copy.py", COPY)?.write("big.bin", &content)?;
    for at in [30, 60] {
        wire.cut_at(Way::There, at * MIB, Cut::Both);
        wire.cut_at(Way::Back, at * MIB, Cut::Both);
    }
    copies(&here, over(&here, &wire, &["run", "--verbose", "copy.py", "big.bin"]), &content)?;
    for way in [Way::There, Way::Back] {
        let passed = wire.passed(way);
        ensure!(passed > 96 * MIB && passed < 96 * MIB + 2 * LOST, "{way:?}: {passed} bytes");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_compressed() -> Result<()> {
    let grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    // Half of it is noise.
    let content = hex::encode(noise(48 * MIB));
    here.write("copy.py", COPY)?.write("big.txt", &content)?;
    wire.cut_at(Way::There, 30 * MIB, Cut::Both);
    let mut command = over(&here, &wire, &["run", "copy.py", "big.txt"]);
    command.env("RGRID_COMPRESS", "true");
    copies(&here, command, content.as_bytes())?;
    let passed = wire.passed(Way::There);
    ensure!(passed < 60 * MIB + LOST, "{passed} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_broke_off_on_our_side_alone_is_waited_for() -> Result<()> {
    let grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    let content = noise(64 * MIB);
    here.write("copy.py", COPY)?.write("big.bin", &content)?;
    // The server hears nothing of it, and holds what came until somebody asks.
    wire.cut_at(Way::There, 40 * MIB, Cut::Near);
    copies(&here, over(&here, &wire, &["run", "copy.py", "big.bin"]), &content)?;
    let passed = wire.passed(Way::There);
    ensure!(passed < 64 * MIB + LOST, "{passed} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_while_it_sent_goes_on_when_it_is_run_again() -> Result<()> {
    let grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    let content = noise(96 * MIB);
    here.write("copy.py", COPY)?.write("big.bin", &content)?;
    let words = ["run", "--verbose", "copy.py", "big.bin"];
    wire.hold_at(Way::There, 48 * MIB);
    let mut first = over(&here, &wire, &words).stderr(Stdio::null()).spawn()?;
    wire.reaches(Way::There, 48 * MIB).await?;
    signal_to(first.id(), Signal::KILL)?;
    first.wait()?;
    wire.let_go(Way::There);
    let before = wire.passed(Way::There);
    let came = copies(&here, over(&here, &wire, &words), &content)?;
    ensure!(came.err().contains("from an earlier, interrupted upload"), "{}", came.err());
    let again = wire.passed(Way::There) - before;
    ensure!(again < 48 * MIB + LOST, "{again} bytes were sent again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_killed_meanwhile_gets_it_from_its_beginning() -> Result<()> {
    let mut grid = Grid::start().await?;
    let (here, wire) = (Here::of(&grid)?, wired(&grid).await?);
    let content = noise(64 * MIB);
    here.write("copy.py", COPY)?.write("big.bin", &content)?;
    let mut command = over(&here, &wire, &["run", "copy.py", "big.bin"]);
    wire.hold_at(Way::There, 32 * MIB);
    let child = command.stderr(Stdio::piped()).spawn()?;
    wire.reaches(Way::There, 32 * MIB).await?;
    grid.kill(Part::Api)?;
    wire.let_go(Way::There);
    grid.run(Part::Api)?;
    let came: Came = child.wait_with_output()?.into();
    ensure!(came.code == 0, "{}", came.err());
    ensure!(here.read("out.bin")? == content, "the output is another");
    let passed = wire.passed(Way::There);
    ensure!(passed >= (32 + 64) * MIB, "{passed} bytes");
    Ok(())
}

async fn put(grid: &Grid, digest: Digest, offset: Option<&str>, body: &[u8]) -> Result<Response> {
    let request = grid.request(Method::PUT, &format!("files/{digest}")).body(body.to_vec());
    let request = match offset {
        Some(offset) => request.header("upload-offset", offset),
        None => request,
    };
    Ok(request.send().await?)
}

/// What the grid says of a content of this size that it does not have.
async fn asked(grid: &Grid, digest: Digest, size: usize) -> Result<Value> {
    let asked = json!({ "sha256": [digest], "sizes": [size] });
    let asked = grid.request(Method::POST, "files/missing").json(&asked);
    let answer: Value = asked.send().await?.error_for_status()?.json().await?;
    ensure!(answer["missing"] == json!([digest]), "{answer}");
    Ok(answer)
}

/// How many bytes of a content wait for the rest.
async fn begun(grid: &Grid, digest: Digest, size: usize) -> Result<Option<u64>> {
    Ok(asked(grid, digest, size).await?["begun"][digest.to_string()].as_u64())
}

/// Begins to send a content over a connection of its own, which is open until it is dropped.
fn begin(grid: &Grid, digest: Digest, size: usize, beginning: &[u8]) -> Result<TcpStream> {
    let [(_, url), (_, key)] = grid.access();
    let mut connection = TcpStream::connect(url.trim_start_matches("http://"))?;
    write!(
        connection,
        "PUT /v1/files/{digest} HTTP/1.1\r\nHost: grid\r\nAuthorization: Bearer {key}\r\nContent-Length: {size}\r\n\r\n"
    )?;
    connection.write_all(beginning)?;
    Ok(connection)
}

/// Begins to send a content and breaks off; returns how much of it waits.
async fn broken_off(grid: &Grid, digest: Digest, size: usize, beginning: &[u8]) -> Result<usize> {
    drop(begin(grid, digest, size, beginning)?);
    let waits = grid
        .eventually("what arrived can be resumed", async || {
            begun(grid, digest, size).await.ok().flatten()
        })
        .await?;
    ensure!(waits <= beginning.len() as u64 && waits >= 4 * MIB, "{waits} bytes");
    Ok(usize::try_from(waits)?)
}

async fn is_begun_and_ended(grid: &Grid) -> Result<()> {
    let content = noise(24 * MIB);
    let (digest, size) = (Digest::of(&content), content.len());
    let waits = broken_off(grid, digest, size, &content[..size / 2]).await?;
    let rest = &content[waits..];
    for (offset, status, words) in [
        ("many", 400, "Upload-Offset"),
        ("-1", 400, "Upload-Offset"),
        ("99999999999999999999999", 400, "Upload-Offset"),
        ("18446744073709551615", 413, "accepts files of at most"),
        ("7", 409, "ask POST /v1/files/missing"),
    ] {
        let answer = put(grid, digest, Some(offset), rest).await?;
        let (came, text) = (answer.status().as_u16(), answer.text().await?);
        ensure!(came == status && text.contains(words), "{offset}: {came} {text}");
    }
    // None of that took anything from it; and who means another file, or tells no size, hears nothing of it.
    ensure!(begun(grid, digest, size).await? == Some(waits as u64));
    ensure!(begun(grid, digest, size - 1).await?.is_none());
    let waits = waits.to_string();
    let (first, second) = tokio::try_join!(put(grid, digest, Some(&waits), rest), put(grid, digest, Some(&waits), rest))?;
    let mut came = [first.status().as_u16(), second.status().as_u16()];
    came.sort_unstable();
    // One has the beginning; the other comes before that is whole, or after.
    ensure!(matches!(came, [201, 409] | [200, 201]), "{came:?}");
    let read = grid.request(Method::GET, &format!("files/{digest}")).send().await?;
    ensure!(read.bytes().await? == content, "what was read is another");
    // What is there needs no rest.
    let again = put(grid, digest, Some(&waits), rest).await?;
    ensure!(again.status().as_u16() == 200, "{}", again.text().await?);
    Ok(())
}

#[tokio::test]
async fn the_rest_of_a_content_is_taken_where_its_beginning_waits() -> Result<()> {
    let minio = Minio::start().await?;
    let files = tempfile::tempdir()?;
    for store in [
        None,
        Some(minio.bucket("grid").await?),
        Some(format!("file://{}", files.path().display())),
    ] {
        let env = store.iter().map(|store| ("RGRID_STORE", store.clone())).collect();
        let grid = Grid::start_with(&[Part::Api], env).await?;
        is_begun_and_ended(&grid).await.with_context(|| format!("{store:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_beginning_and_a_rest_that_do_not_fit_are_refused_and_nothing_is_stored() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api]).await?;
    let content = noise(16 * MIB);
    let (digest, size) = (Digest::of(&content), content.len());
    // Whichever of them is wrong, whoever sends the rest can send it all.
    for wrong in [0, size - 1] {
        let mut other = content.clone();
        other[wrong] ^= 1;
        let waits = broken_off(&grid, digest, size, &other[..size / 2]).await?;
        let answer = put(&grid, digest, Some(&waits.to_string()), &other[waits..]).await?;
        let (came, text) = (answer.status().as_u16(), answer.text().await?);
        ensure!(came == 409 && text.contains("send the file from its beginning"), "{came} {text}");
        ensure!(begun(&grid, digest, size).await?.is_none());
        let answer = put(&grid, digest, Some(&waits.to_string()), &content[waits..]).await?;
        ensure!(answer.status().as_u16() == 409, "{}", answer.status());
    }
    // Its end was all that was missing.
    let waits = broken_off(&grid, digest, size, &content[..size - 1]).await?;
    let small = zstd::encode_all(&content[waits..], 1)?;
    let request = grid.request(Method::PUT, &format!("files/{digest}")).body(small);
    let request = request
        .header("content-encoding", "zstd")
        .header("rgrid-content-length", size - waits)
        .header("upload-offset", waits);
    let answer = request.send().await?;
    ensure!(answer.status().as_u16() == 201, "{}", answer.text().await?);
    Ok(())
}

#[tokio::test]
async fn a_sender_that_fell_silent_is_cut_off_for_who_goes_on() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api]).await?;
    let (first, second) = (noise(16 * MIB), noise(16 * MIB));
    let (half, size) = (first.len() / 2, first.len());
    let (kept, digest) = (Digest::of(&first), Digest::of(&second));
    let mut slow = begin(&grid, kept, size, &first[..half])?;
    let mut silent = begin(&grid, digest, size, &second[..half])?;
    grid.eventually("it arrives", async || {
        let answer = asked(&grid, digest, size).await.ok()?;
        (answer["arriving"] == json!([digest])).then_some(())
    })
    .await?;
    // Nobody says that its cable was pulled: it is known by its silence.
    let waits = grid
        .eventually("what arrived can be resumed", async || {
            begun(&grid, digest, size).await.ok().flatten()
        })
        .await?;
    ensure!(waits == half as u64, "{waits} bytes");
    let ended = put(&grid, digest, Some(&waits.to_string()), &second[half..]).await?;
    ensure!(ended.status().as_u16() == 201, "{}", ended.text().await?);
    let mut told = String::new();
    silent.read_to_string(&mut told)?;
    ensure!(told.starts_with("HTTP/1.1 409") && told.contains("send the rest"), "{told}");
    // The other has been silent for longer. Who tells no size does not mean to go on with it, and cuts nobody off.
    let only = grid.request(Method::POST, "files/missing").json(&json!({ "sha256": [kept] }));
    let answer: Value = only.send().await?.json().await?;
    ensure!(answer["begun"].is_null() && answer["arriving"].is_null(), "{answer}");
    slow.write_all(&first[half..])?;
    let mut answer = [0; 12];
    slow.read_exact(&mut answer)?;
    ensure!(answer == *b"HTTP/1.1 201", "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

#[tokio::test]
async fn an_api_that_stops_takes_back_what_waits() -> Result<()> {
    let store = tempfile::tempdir()?;
    let env = vec![("RGRID_STORE", format!("file://{}", store.path().display()))];
    let grid = Grid::start_with(&[Part::Api], env).await?;
    let left = || -> Vec<PathBuf> {
        let entries = walkdir::WalkDir::new(store.path()).into_iter().filter_map(Result::ok);
        let files = entries.filter(|entry| entry.file_type().is_file() && entry.metadata().is_ok_and(|meta| meta.len() >= 4 * MIB));
        files.map(walkdir::DirEntry::into_path).collect()
    };
    for _ in 0..2 {
        let content = noise(16 * MIB);
        broken_off(&grid, Digest::of(&content), content.len(), &content[..12 << 20]).await?;
    }
    ensure!(left().len() == 2, "{:?}", left());
    signal_to(grid.pid(Part::Api)?, Signal::TERM)?;
    grid.eventually("it is taken back", async || left().is_empty().then_some(())).await
}
