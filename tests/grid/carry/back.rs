//! What a script removes and renames of what it was given comes back too; and no file of the user's is ever lost.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use grid_tests::grid::Grid;

use super::{as_here::tree, changed::grid_of};
use crate::cli::here::{Came, Here};

/// A project: its files, the words of its command behind the interpreter, and options for `rgrid run`.
struct Case {
    name: &'static str,
    script: &'static str,
    files: &'static [(&'static str, &'static str)],
    words: &'static [&'static str],
    /// How it ends.
    code: i32,
}

const CASES: [Case; 10] = [
    Case {
        name: "files that are moved from one directory to another",
        script: "import os\nos.makedirs('done', exist_ok=True)\nfor f in sorted(os.listdir('inbox')):\n    print(f)\n    os.rename('inbox/' + f, 'done/' + f)\n",
        files: &[("inbox/x", "x"), ("inbox/y", "y")],
        words: &["inbox"],
        code: 0,
    },
    Case {
        name: "a directory that is removed with all in it, by a script that fails",
        script: "import shutil, sys\nshutil.rmtree('tmp')\nsys.exit(3)\n",
        files: &[("tmp/deep/a", "a"), ("tmp/b", "b"), ("stays", "s")],
        words: &["tmp", "stays"],
        code: 3,
    },
    Case {
        name: "a file that becomes a directory, and a directory that becomes a file",
        script: "import os, shutil\nos.remove('f')\nos.mkdir('f')\nopen('f/in', 'w').write('in')\nshutil.rmtree('d')\nopen('d', 'w').write('d')\n",
        files: &[("f", "f"), ("d/in/deep", "x")],
        words: &["f", "d"],
        code: 0,
    },
    Case {
        name: "a file that is replaced by a link, and one that is renamed over another",
        script: "import os\nos.rename('a', 'a.1')\nos.symlink('a.1', 'a')\nos.rename('b', 'c')\n",
        files: &[("a", "a"), ("b", "b"), ("c", "c")],
        words: &["a", "b", "c"],
        code: 0,
    },
    Case {
        name: "logs that are rotated",
        script: "import os\nfor n in (2, 1):\n    if os.path.exists(f'l.{n}'):\n        os.rename(f'l.{n}', f'l.{n + 1}')\nos.rename('l', 'l.1')\nopen('l', 'w').write('new')\n",
        files: &[("l", "now"), ("l.1", "before"), ("l.2", "long ago")],
        words: &["l", "l.1", "l.2", "l.3"],
        code: 0,
    },
    Case {
        name: "outputs that are written again, each time with more",
        script: "import os\nold = open('in').read()\nopen('in', 'a').write('+')\nos.makedirs('out', exist_ok=True)\nopen('out/r', 'w').write(old)\nopen('same', 'w').write('same')\n",
        files: &[("in", "in")],
        words: &["in"],
        code: 0,
    },
    Case {
        name: "a mode that is taken away",
        script: "import os\nos.chmod('tool', 0o644)\nopen('made', 'w').close()\nos.chmod('made', 0o755)\n",
        files: &[("tool", "#!/bin/sh\n")],
        words: &["tool"],
        code: 0,
    },
    Case {
        name: "a file that is removed where others of its directory were not sent",
        script: "import os\nos.remove('d/a')\n",
        files: &[("d/a", "a"), ("d/b", "b")],
        words: &["d/a"],
        code: 0,
    },
    Case {
        name: "a file that nobody but root may write to",
        script: "import os\ntry:\n    open('sealed', 'a').write('+')\nexcept PermissionError:\n    print('no')\nif os.path.exists('sealed.2'):\n    os.rename('sealed.2', 'moved')\n",
        files: &[("sealed", "s"), ("sealed.2", "t")],
        words: &["sealed", "sealed.2"],
        code: 0,
    },
    Case {
        name: "a link that is removed, and what it led to",
        script: "import os\nos.remove('l')\nos.remove('to')\n",
        files: &[("to", "x")],
        words: &["to", "l"],
        code: 0,
    },
];

fn lay(case: &Case, dir: &Path) -> Result<()> {
    fs::write(dir.join("s.py"), case.script)?;
    for (path, content) in case.files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().context("a parent")?)?;
        fs::write(path, content)?;
    }
    if case.words.contains(&"tool") {
        fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755))?;
    }
    if case.words.contains(&"sealed") {
        for name in ["sealed", "sealed.2"] {
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o444))?;
        }
    }
    if case.words.contains(&"l") && case.files.iter().any(|(path, _)| *path == "to") {
        symlink("to", dir.join("l"))?;
    }
    Ok(())
}

fn locally(dir: &Path, words: &[&str]) -> Result<Came> {
    let output = Command::new("python3")
        .arg("s.py")
        .args(words)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()?;
    Ok(output.into())
}

fn modes(dir: &Path) -> Result<Vec<(String, u32)>> {
    let mut modes = Vec::new();
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            modes.push((entry.path().strip_prefix(dir)?.display().to_string(), mode));
        }
    }
    Ok(modes)
}

/// Each is run twice here, twice there, and once here and then there: the same is left each time.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_script_removes_and_renames_comes_back_as_if_it_ran_here() -> Result<()> {
    for executor in ["process", "docker"] {
        let grid = grid_of(executor).await?;
        for case in &CASES {
            let (here, there, both) = (tempfile::tempdir()?, Here::of(&grid)?, Here::of(&grid)?);
            for dir in [here.path(), &there.path(), &both.path()] {
                lay(case, dir)?;
            }
            // What is gone cannot be named again.
            let words = |dir: &Path| -> Vec<&str> {
                let names = case.words.iter().copied();
                names.filter(|name| dir.join(name).symlink_metadata().is_ok()).collect()
            };
            let remote = |here: &Here| here.rgrid(&[&["run", "s.py"], &words(&here.path())[..]].concat());
            for round in [1, 2] {
                let name = format!("{executor}: {}, round {round}", case.name);
                let local = locally(here.path(), &words(here.path()))?;
                let came = remote(&there)?;
                ensure!(
                    (came.code, came.out()) == (local.code, local.out()),
                    "{name}: {}{}",
                    came.out(),
                    came.err()
                );
                ensure!(round == 2 || came.code == case.code, "{name}: {}", came.code);
                assert_eq!(tree(&there.path())?, tree(here.path())?, "{name}: {}", came.err());
                assert_eq!(modes(&there.path())?, modes(here.path())?, "{name}");
                if round == 1 {
                    locally(&both.path(), &words(&both.path()))?;
                } else {
                    remote(&both)?;
                }
                // What was made here and is made otherwise there was not sent: it is kept besides.
                let mut mixed = tree(&both.path())?;
                mixed.retain(|path, _| !path.starts_with(".rgrid"));
                assert_eq!(mixed, tree(here.path())?, "{name}, once here and then there");
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_removed_stays_where_it_was_changed_or_is_to_stay() -> Result<()> {
    let grid = Grid::start().await?;
    let removes = "import os, sys, time\nos.remove('in/x')\nopen('in/z', 'w').write('z')\nos.remove('y')\nif len(sys.argv) > 3:\n    print('ready', flush=True)\n    time.sleep(300)\n";
    let lay = || -> Result<Here> {
        let here = Here::of(&grid)?;
        here.write("s.py", removes)?.write("in/x", "x")?.write("y", "y")?;
        Ok(here)
    };
    let left = |here: &Here| ["in/x", "y"].map(|name| here.path().join(name).exists());
    let here = lay()?;
    let came = here.rgrid(&["run", "--keep-deleted", "s.py", "in", "y"])?;
    ensure!(
        came.code == 0 && left(&here) == [true, true] && here.read("in/z")? == b"z",
        "{}",
        came.err()
    );
    let here = lay()?;
    let came = here.rgrid(&["run", "--output", "in/*", "s.py", "in", "y"])?;
    ensure!(came.code == 0 && left(&here) == [false, true], "{}", came.err());
    let here = lay()?;
    let came = here.rgrid(&["run", "--no-outputs", "s.py", "in", "y"])?;
    ensure!(came.code == 0 && left(&here) == [true, true], "{}", came.err());
    // A job that was killed removes nothing here.
    let here = lay()?;
    let came = here.rgrid(&["run", "--timeout", "2s", "s.py", "in", "y", "wait"])?;
    ensure!(came.code == 124 && left(&here) == [true, true], "{}", came.err());
    ensure!(
        came.err()
            .contains("2 files that the job removed stay here, because the job did not end on its own"),
        "{}",
        came.err()
    );
    // Nor is anything removed that was changed since it was sent.
    let here = lay()?;
    let slow = here.write("s.py", format!("import time\nprint('ready', flush=True)\ntime.sleep(2)\n{removes}"))?;
    let mut child = slow
        .command(&["run", "s.py", "in", "y"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().context("a pipe")?, &mut line)?;
    here.write("y", "changed")?;
    let came: Came = child.wait_with_output()?.into();
    ensure!(left(&here) == [false, true] && here.read("y")? == b"changed", "{}", came.err());
    ensure!(
        came.code == 0 && came.err().contains(": y (it has changed since it was sent)"),
        "{}",
        came.err()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_elsewhere_is_removed_there_and_nowhere_behind_a_link() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os, sys\nfor a in sys.argv[1:]:\n    os.remove(a)\n")?
        .write("r.py", "import os, sys\nos.remove(sys.argv[1])\n")?
        .write("../other/x", "x")?
        .write("../site/a/b", "b")?
        .write("x", "mine")?;
    let came = here.rgrid(&["run", "s.py", "../other/x"])?;
    ensure!(
        came.code == 0 && here.read("x")? == b"mine" && here.read("../other/x").is_err(),
        "{}",
        came.err()
    );
    here.write(
        "s.py",
        "import os, sys\nos.remove(sys.argv[1] + '/a/b')\nopen(sys.argv[1] + '/c', 'w').write('c')\n",
    )?;
    // By the name of a link of one's own, it is the link that is removed.
    symlink("../other/c", here.path().join("own"))?;
    here.write("../other/c", "c")?;
    let came = here.rgrid(&["run", "r.py", "own"])?;
    ensure!(
        came.code == 0 && !here.path().join("own").is_symlink() && here.read("../other/c")? == b"c",
        "{}",
        came.err()
    );
    here.rgrid(&["undo", "last"])?.line()?;
    ensure!(fs::read_link(here.path().join("own"))? == Path::new("../other/c"));
    let came = here.rgrid(&["run", "s.py", "../site"])?;
    ensure!(
        came.code == 0 && here.read("../site/a/b").is_err() && here.read("../site/c")? == b"c",
        "{}",
        came.err()
    );
    Ok(())
}

/// How many files stand in `.rgrid/replaced` here.
fn replaced(here: &Here) -> Result<Vec<(String, Vec<u8>)>> {
    let kept = here.files()?.into_iter().filter(|(path, _)| path.starts_with(".rgrid/replaced"));
    Ok(kept
        .map(|(path, (content, _))| {
            let name = path.components().skip(3).collect::<std::path::PathBuf>();
            (name.display().to_string(), content)
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_not_sent_is_kept_by_a_success_and_left_alone_by_a_failure() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import sys\nopen('stock.db', 'w').write('of the job')\nopen('log/run.log', 'w') if len(sys.argv) > 2 else None\nsys.exit(int(sys.argv[1]))\n")?
        .write("stock.db", "mine")?;
    // A failure.
    let came = here.rgrid(&["run", "s.py", "3"])?;
    ensure!(came.code == 3 && here.read("stock.db")? == b"mine", "{}", came.err());
    let job = here.rgrid(&["list", "--all", "--json"])?.json()?;
    let job = job["jobs"][0]["id"].as_str().context("an id")?.to_owned();
    let beside = format!("stock.db.rgrid-{job}");
    ensure!(
        here.read(&beside)? == b"of the job" && came.err().contains(&beside),
        "{}",
        came.err()
    );
    ensure!(
        came.err().lines().filter(|line| line.starts_with("rgrid:")).count() == 1,
        "{}",
        came.err()
    );
    ensure!(!here.path().join(".rgrid").exists());
    fs::remove_file(here.path().join(&beside))?;
    // A success.
    let came = here.rgrid(&["run", "s.py", "0"])?;
    ensure!(came.code == 0 && here.read("stock.db")? == b"of the job", "{}", came.err());
    assert_eq!(replaced(&here)?, [("stock.db".to_owned(), b"mine".to_vec())]);
    ensure!(here.read(".rgrid/.gitignore")? == b"*\n");
    let line = came
        .err()
        .lines()
        .find(|line| line.contains("replaced"))
        .context("a line")?
        .to_owned();
    let undo = line.split('`').nth(1).context("a command")?.to_owned();
    ensure!(
        line.starts_with("rgrid: replaced 1 file that was not sent (stock.db); ") && undo.starts_with("rgrid undo "),
        "{line}"
    );
    // What a job left is no file of the user's: the next one replaces it, and says nothing.
    here.write("s.py", "open('stock.db', 'w').write('of another job')\n")?;
    let came = here.rgrid(&["run", "s.py"])?;
    ensure!(
        came.code == 0 && came.err().is_empty() && here.read("stock.db")? == b"of another job",
        "{}",
        came.err()
    );
    ensure!(replaced(&here)?.len() == 1);
    // But for what the user made of it.
    here.write("stock.db", "mine again")?
        .write("s.py", "open('stock.db', 'w').write('of a third job')\n")?;
    let came = here.rgrid(&["run", "s.py"])?;
    ensure!(
        came.err().contains("replaced 1 file") && replaced(&here)?.len() == 2,
        "{}",
        came.err()
    );
    // What is kept is never sent.
    let planned = here.rgrid(&["run", "--dry-run", "--json", "--workdir", "s.py"])?;
    ensure!(!planned.out().contains(".rgrid"), "{}", planned.out());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_replaced_and_removed_is_undone_and_done_again() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os, shutil\nopen('d/a', 'w').write('new')\nshutil.rmtree('in')\n")?
        .write("d/other", "")?
        .write("d/a", "old")?
        .write("in/deep/x", "x")?;
    fs::set_permissions(here.path().join("in/deep/x"), fs::Permissions::from_mode(0o750))?;
    symlink("deep/x", here.path().join("in/l"))?;
    let laid = tree(&here.path())?;
    let came = here.rgrid(&["run", "s.py", "d/other", "in"])?;
    ensure!(came.code == 0, "{}", came.err());
    let gone = |here: &Here| !here.path().join("in").exists();
    ensure!(here.read("d/a")? == b"new" && gone(&here), "{}", came.err());
    let done = tree(&here.path())?;
    let undone = here.rgrid(&["undo", "last"])?.line()?;
    ensure!(undone.contains("d/a") && here.read("d/a")? == b"old", "{undone}");
    let mut left = tree(&here.path())?;
    left.retain(|path, _| !path.starts_with(".rgrid"));
    assert_eq!(left, laid);
    ensure!(fs::metadata(here.path().join("in/deep/x"))?.permissions().mode() & 0o777 == 0o750);
    here.rgrid(&["undo", "last"])?.line()?;
    assert_eq!(tree(&here.path())?, done, "done again");
    // Nothing of what was changed since is lost.
    here.write("d/a", "changed")?;
    let came = here.rgrid(&["undo", "last"])?;
    ensure!(
        came.code == 1 && came.err().contains("has changed since") && here.read("d/a")? == b"changed" && gone(&here),
        "{}",
        came.err()
    );
    let came = here.rgrid(&["undo", "--force", "last"])?;
    ensure!(
        came.code == 0 && here.read("d/a")? == b"old" && here.read("in/deep/x")? == b"x",
        "{}",
        came.err()
    );
    assert_eq!(replaced(&here)?, [("d/a".to_owned(), b"changed".to_vec())]);
    let came = here.rgrid(&["undo", "00000000-0000-7000-8000-000000000000"])?;
    ensure!(
        came.code == 1 && came.err().contains("replaced or removed no files here"),
        "{}",
        came.err()
    );
    Ok(())
}

/// A run that is killed while it replaces files leaves of each of them the old version, somewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_midst_loses_no_version() -> Result<()> {
    const FILES: usize = 300;
    let grid = Grid::start().await?;
    for (round, wait) in [0, 2, 5, 10, 20, 40].into_iter().enumerate() {
        let here = Here::of(&grid)?;
        here.write(
            "s.py",
            format!("for n in range({FILES}):\n    open(f'{{n}}.txt', 'w').write('new')\n"),
        )?;
        for n in 0..FILES {
            here.write(&format!("{n}.txt"), format!("mine {n}"))?;
        }
        let mut child = here.command(&["run", "s.py"]).stderr(Stdio::null()).spawn()?;
        let replaces = || here.path().join(".rgrid/replaced").exists();
        while !replaces() && child.try_wait()?.is_none() {
            std::thread::yield_now();
        }
        let until = std::time::Instant::now() + Duration::from_millis(wait);
        while std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        child.kill()?;
        child.wait()?;
        let kept: std::collections::HashMap<_, _> = replaced(&here)?.into_iter().collect();
        for n in 0..FILES {
            let name = format!("{n}.txt");
            let (now, old) = (here.read(&name)?, format!("mine {n}").into_bytes());
            ensure!(now == old || now == b"new", "round {round}: {name} is half written");
            ensure!(now == old || kept.get(&name) == Some(&old), "round {round}: {name} is lost");
        }
    }
    Ok(())
}

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
        came.err().contains("no file is named by the output pattern `none.csv` (in 4 jobs)"),
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
        (0, vec!["rgrid: no file is named by the output pattern `none/*.csv`".to_owned()])
    );
    let said = here.rgrid(&["history", "last"])?.out();
    ensure!(said.contains("1 remark on outputs"), "{said}");
    for (pattern, why) in [
        ("../x", "climbs"),
        ("/etc/x", "absolute path"),
        ("!*.csv", "begins with `!`"),
        ("", "is empty"),
        ("a/../../b", "climbs"),
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

#[tokio::test(flavor = "multi_thread")]
async fn no_output_is_saved_among_rgrids_own_files() -> Result<()> {
    let grid = Grid::start().await?;
    for path in [".rgrid/replaced/x", ".rgrid"] {
        let here = Here::of(&grid)?;
        let script = format!(
            "import os\nos.makedirs(os.path.dirname('{path}') or '.', exist_ok=True)\nfor p in ('a', '{path}', 'z'):\n    open(p, 'w').write(p)\n"
        );
        here.write("s.py", script)?;
        let came = here.rgrid(&["run", "s.py"])?;
        ensure!(
            came.code == 1 && came.err().contains(&format!("cannot save {path}: ")),
            "{}",
            came.err()
        );
        ensure!(here.read("a")? == b"a" && here.read("z")? == b"z" && !here.path().join(".rgrid").exists());
    }
    Ok(())
}

/// A project whose script reaches above its own directory has its outputs, removals and kept files where they are meant.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_above_the_current_directory_is_done_there() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let script = "import os\nfor f in os.listdir('../inbox'):\n    os.rename('../inbox/' + f, '../done/' + f)\nopen('../done/list', 'w').write('new')\nopen('out.txt', 'w').write('out')\n";
    here.write("app/s.py", script)?
        .write("inbox/x", "x")?
        .write("done/old", "old")?
        .write("done/list", "mine")?
        .write("pyproject.toml", "")?;
    let words = ["run", "--exclude", "list", "s.py", "../inbox", "../done"];
    let came: Came = here.command(&words).current_dir(here.path().join("app")).output()?.into();
    ensure!(came.code == 0, "{}", came.err());
    ensure!(here.read("done/x")? == b"x" && here.read("inbox/x").is_err(), "{}", came.err());
    ensure!(
        here.read("app/out.txt")? == b"out" && here.read("done/list")? == b"new" && here.read("done/old")? == b"old",
        "{}",
        came.err()
    );
    ensure!(came.err().contains("replaced 1 file that was not sent ("), "{}", came.err());
    let undone: Came = here
        .command(&["undo", "last"])
        .current_dir(here.path().join("app"))
        .output()?
        .into();
    ensure!(undone.code == 0, "{}", undone.err());
    ensure!(
        here.read("done/list")? == b"mine" && here.read("inbox/x")? == b"x",
        "{}",
        undone.out()
    );
    Ok(())
}
