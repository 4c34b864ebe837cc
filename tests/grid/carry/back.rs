//! What a script removes and renames of what it was given comes back too; and no file of the user's is ever lost.

mod elsewhere;
mod partly;
mod removed;
mod undone;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

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
