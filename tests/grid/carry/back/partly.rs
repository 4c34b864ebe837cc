//! Outputs that can be saved are saved, and the others are named.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use grid_tests::grid::Grid;

use crate::cli::here::Here;

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_can_be_saved_is_and_the_rest_is_named() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let makes = "import os, sys\nfor p in ('a/x', 'b', 'c/y', 'd', 'ok/z'):\n    os.makedirs(os.path.dirname(p) or '.', exist_ok=True)\n    open(p, 'w').write(p)\nsys.exit(int(sys.argv[1]))\n";
    here.write("s.py", makes)?
        .write("a", "a file where a directory is due")?
        .write("b/in", "a directory where a file is due")?
        .write("../outside/keep", "")?;
    symlink("../outside", here.path().join("c"))?;
    let came = here.rgrid(&["run", "--no-scan", "s.py", "0"])?;
    ensure!(came.code == 1, "{}", came.err());
    ensure!(here.read("d")? == b"d" && here.read("ok/z")? == b"ok/z", "{}", came.err());
    for (path, why) in [
        ("a/x", "a file exists"),
        ("b", "a directory of that name exists"),
        ("c/y", "leads out of the directory"),
    ] {
        let err = came.err();
        let line = err
            .lines()
            .find(|line| line.contains(&format!("cannot save {path}: ")))
            .context(path)?;
        ensure!(line.contains(why) && line.contains(&format!("--file {path} -o DIR")), "{line}");
    }
    ensure!(fs::read_dir(here.path().join("../outside"))?.count() == 1);
    // The script's own exit code says more.
    ensure!(here.rgrid(&["run", "--no-scan", "s.py", "5"])?.code == 5);
    // So it is with a download.
    let came = here.rgrid(&["run", "--no-scan", "--no-download", "s.py", "0"])?;
    ensure!(came.code == 0, "{}", came.err());
    fs::remove_file(here.path().join("d"))?;
    let came = here.rgrid(&["download", "last"])?;
    ensure!(
        came.code == 1 && here.read("d")? == b"d" && came.err().contains("cannot save a/x: "),
        "{}",
        came.err()
    );
    let came = here.rgrid(&["download", "last", "-o", "to"])?;
    ensure!(came.code == 0 && here.read("to/a/x")? == b"a/x", "{}", came.err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_saves_what_it_can_and_keeps_what_is_here() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "s.py",
        "import sys\nopen('r', 'w').write('of ' + sys.argv[1])\nsys.exit(sys.argv[1] == '3')\n",
    )?
    .write("outputs/1/r", "mine 1")?
    .write("outputs/2/r/in", "a directory")?
    .write("outputs/3/r", "mine 3")?;
    let came = here.rgrid(&["run", "--array", "1-4", "--output", "r", "--output", "none.csv", "s.py", "{}"])?;
    ensure!(came.code == 1, "{}", came.err());
    ensure!(here.read("outputs/1/r")? == b"of 1" && here.read("outputs/4/r")? == b"of 4" && here.read("outputs/3/r")? == b"mine 3");
    ensure!(
        came.err().contains("replaced 1 file that was not sent (outputs/1/r)"),
        "{}",
        came.err()
    );
    ensure!(came.err().contains("cannot save r: a directory of that name"), "{}", came.err());
    ensure!(came.err().contains("outputs/3/r.rgrid-"), "{}", came.err());
    ensure!(
        came.err().contains("the output pattern `none.csv` matches no file (in 4 jobs)"),
        "{}",
        came.err()
    );
    let kept: Vec<_> = here
        .files()?
        .into_keys()
        .filter(|path| path.starts_with("outputs/.rgrid/replaced"))
        .collect();
    ensure!(kept.len() == 1 && kept[0].ends_with("1/r"), "{kept:?}");
    let undone = here.rgrid(&["undo", "last-batch"])?.line()?;
    ensure!(here.read("outputs/1/r")? == b"mine 1", "{undone}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_that_names_nothing_is_said_or_refused() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "s.py",
        "import os\nos.makedirs('out/deep')\nopen('out/deep/a', 'w').write('a')\nopen('b', 'w').write('b')\n",
    )?;
    for pattern in ["out", "out/", "./out", "out/**"] {
        let came = here.rgrid(&["run", "--output", pattern, "s.py"])?;
        ensure!(came.code == 0 && came.err().is_empty(), "{pattern}: {}", came.err());
        ensure!(here.read("out/deep/a")? == b"a" && here.read("b").is_err(), "{pattern}");
        fs::remove_dir_all(here.path().join("out"))?;
    }
    let absolute = format!("{}/b", here.path().canonicalize()?.display());
    let came = here.rgrid(&["run", "--output", &absolute, "s.py"])?;
    ensure!(
        came.code == 0 && here.read("b")? == b"b" && here.read("out/deep/a").is_err(),
        "{}",
        came.err()
    );
    let came = here.rgrid(&["run", "--output", "none/*.csv", "--output", "out", "s.py"])?;
    let lines: Vec<_> = came
        .err()
        .lines()
        .filter(|line| line.starts_with("rgrid:"))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(
        (came.code, lines),
        (0, vec!["rgrid: the output pattern `none/*.csv` matches no file".to_owned()])
    );
    let said = here.rgrid(&["history", "last"])?.out();
    ensure!(said.contains("1 remark on outputs"), "{said}");
    for (pattern, why) in [
        ("../x", "contains `..`"),
        ("/etc/x", "absolute path"),
        ("!*.csv", "begins with `!`"),
        ("", "is empty"),
        ("a/../../b", "contains `..`"),
    ] {
        let came = here.rgrid(&["run", "--output", pattern, "s.py"])?;
        ensure!(came.code == 2 && came.err().contains(why), "{pattern}: {}", came.err());
        let submission = serde_json::json!({ "command": ["true"], "outputs": [pattern] });
        let answer = grid.request(reqwest::Method::POST, "jobs").json(&submission).send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        ensure!(status == 422 && text.contains(why), "{pattern}: {status} {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_named_and_keeps_nothing_else() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "s.py",
        "import os\nos.mkfifo('pipe')\nos.symlink('/etc/passwd', 'out')\nopen(b'\\xff', 'w').close()\nopen('ok', 'w').write('ok')\n",
    )?;
    let came = here.rgrid(&["run", "s.py"])?;
    ensure!(came.code == 0 && here.read("ok")? == b"ok", "{}", came.err());
    for why in ["pipe: neither a file nor a directory", "out: a link that leads out", "not UTF-8"] {
        ensure!(came.err().contains(why), "{why}: {}", came.err());
    }
    let came = here.rgrid(&["run", "--array", "1-2", "s.py"])?;
    ensure!(
        came.code == 0 && came.err().contains("pipe: neither a file nor a directory (in 2 jobs)"),
        "{}",
        came.err()
    );
    let json = here.rgrid(&["download", "last", "--list", "--json"])?.json()?;
    ensure!(json["left_out"].as_array().is_some_and(|left| left.len() == 3), "{json}");
    ensure!(Digest::of(b"ok").to_string() == json["artifacts"][0]["sha256"], "{json}");
    Ok(())
}
