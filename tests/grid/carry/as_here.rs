//! What a script does beyond its own directory, and to what it was given: there as it does it here.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::Grid;

use crate::cli::here::{Came, Here};

/// A script and what lies about it, in the directory `here` and beside that.
struct Case {
    name: &'static str,
    /// What runs it here; nothing: itself.
    with: Option<&'static str>,
    words: &'static [&'static str],
    options: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    lay: fn(&Path) -> Result<()>,
}

const NONE: Case = Case {
    name: "",
    with: Some("python3"),
    words: &[],
    options: &[],
    files: &[],
    lay: |_| Ok(()),
};

const CASES: [Case; 9] = [
    Case {
        name: "a file from elsewhere is changed there, and one of its name here is left alone",
        words: &["fix.py", "../other/config.json", "config.json"],
        files: &[
            (
                "here/fix.py",
                "import sys\nopen(sys.argv[1], 'a').write('more')\nprint(open(sys.argv[2]).read())\n",
            ),
            ("here/config.json", "mine"),
            ("other/config.json", "other"),
        ],
        ..NONE
    },
    Case {
        name: "so is a directory from elsewhere, with what is new in it",
        words: &["site.py", "../site"],
        files: &[
            (
                "here/site.py",
                "import os, sys\nd = sys.argv[1]\nopen(d + '/a.md', 'a').write('!')\nos.makedirs(d + '/new/deep')\nopen(d + '/new/deep/b.md', 'w').write('b')\nopen('c.md', 'w').write('c')\n",
            ),
            ("here/site/a.md", "mine"),
            ("site/a.md", "a"),
        ],
        ..NONE
    },
    Case {
        name: "a link that is replaced leaves alone what it led to",
        words: &["turn.py", "cur.txt"],
        files: &[
            (
                "here/turn.py",
                "import os, sys\nprint(os.path.islink(sys.argv[1]), open(sys.argv[1]).read())\nopen('t', 'w').write('v2')\nos.replace('t', sys.argv[1])\n",
            ),
            ("here/v1.txt", "v1"),
        ],
        lay: |top| Ok(symlink("v1.txt", top.join("here/cur.txt"))?),
        ..NONE
    },
    Case {
        name: "what is written through a link to a directory",
        words: &["write.py", "latest"],
        files: &[
            (
                "here/write.py",
                "import os, sys\nprint(os.readlink(sys.argv[1]), os.listdir(sys.argv[1]))\nopen(sys.argv[1] + '/b', 'w').write('b')\n",
            ),
            ("here/runs/1/a", "a"),
        ],
        lay: |top| Ok(symlink("runs/1", top.join("here/latest"))?),
        ..NONE
    },
    Case {
        name: "the options of a first line",
        with: None,
        words: &["./strict"],
        files: &[("here/strict", "#!/bin/bash -eu\necho yes\nfalse\necho no\n")],
        lay: |top| Ok(fs::set_permissions(top.join("here/strict"), fs::Permissions::from_mode(0o755))?),
        ..NONE
    },
    Case {
        name: "empty directories that are named",
        words: &["dirs.py", "parts", "--d=more", "nest"],
        files: &[(
            "here/dirs.py",
            "import os, sys\nprint([os.path.isdir(a.split('=')[-1]) for a in sys.argv[1:]], os.listdir('nest'))\n",
        )],
        lay: |top| {
            Ok(["parts", "more", "nest/in"]
                .iter()
                .try_for_each(|dir| fs::create_dir_all(top.join("here").join(dir)))?)
        },
        ..NONE
    },
    Case {
        name: "something new in a directory that is here",
        words: &["make.py", "--out=res/new.txt", "res/full/x", "./res/../res/y", "none/such"],
        files: &[
            (
                "here/make.py",
                "import sys\nfor a in sys.argv[1:]:\n    try:\n        open(a.split('=')[-1], 'w').write('new')\n    except FileNotFoundError:\n        print('no', a)\n",
            ),
            ("here/res/full/old", "old"),
        ],
        ..NONE
    },
    Case {
        name: "a directory to include by its name",
        words: &["read.py"],
        options: &["--include", "conf", "--include", "data/"],
        files: &[
            ("here/read.py", "print(open('conf/deep/a.ini').read(), open('data/b').read())\n"),
            ("here/conf/deep/a.ini", "a"),
            ("here/data/b", "b"),
        ],
        ..NONE
    },
    Case {
        name: "standard input for each of many",
        words: &["each.py"],
        options: &["-i", "in.txt", "--array", "1-2"],
        with: Some("sh -c 'for n in 1 2; do mkdir -p outputs/$n; (cd outputs/$n; python3 ../../each.py < ../../in.txt); done'"),
        files: &[
            ("here/each.py", "import sys\nopen('out', 'w').write(sys.stdin.read())\n"),
            ("here/in.txt", "given"),
        ],
        ..NONE
    },
];

/// Every file and link below, by its path.
fn tree(top: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(top) {
        let entry = entry?;
        let path = entry.path().strip_prefix(top)?.to_owned();
        if entry.path_is_symlink() {
            found.insert(path, format!("-> {}", fs::read_link(entry.path())?.display()));
        } else if entry.file_type().is_file() {
            found.insert(path, String::from_utf8_lossy(&fs::read(entry.path())?).into_owned());
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_script_does_to_what_is_about_it_it_does_here() -> Result<()> {
    let grid = Grid::start().await?;
    let access = Here::of(&grid)?;
    for case in CASES {
        let tops = [tempfile::tempdir()?, tempfile::tempdir()?];
        for top in &tops {
            for (path, content) in case.files {
                let path = top.path().join(path);
                fs::create_dir_all(path.parent().context("a parent")?)?;
                fs::write(path, content)?;
            }
            (case.lay)(top.path())?;
        }
        let [here, there] = &tops;
        let mut local = match case.with {
            Some(line) if line.starts_with("sh -c") => {
                let mut shell = Command::new("sh");
                shell.args(["-c", line]);
                shell
            }
            Some(program) => {
                let mut command = Command::new(program);
                command.arg("-B").args(case.words);
                command
            }
            None => Command::new(here.path().join("here").join(case.words[0])),
        };
        let local: Came = local.current_dir(here.path().join("here")).stdin(Stdio::null()).output()?.into();
        let words = [&["run"], case.options, case.words].concat();
        let came: Came = access.command(&words).current_dir(there.path().join("here")).output()?.into();
        let name = case.name;
        ensure!(
            came.code == local.code,
            "{name}: {} here, {}: {}",
            local.code,
            came.code,
            came.err()
        );
        ensure!(came.out() == local.out(), "{name}: {:?} here, {:?}", local.out(), came.out());
        assert_eq!(tree(there.path())?, tree(here.path())?, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn an_absolute_path_to_something_new_is_this_directorys() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "make.py",
        "import sys\nfor a in sys.argv[1:]:\n    open(a.split('=')[-1], 'w').write(a)\n",
    )?
    .write("res/old", "old")?;
    let base = here.path().canonicalize()?;
    let words = [format!("{}/res/a", base.display()), format!("--out={}/b", base.display())];
    let came = here.rgrid(&["run", "make.py", &words[0], &words[1]])?;
    ensure!(came.code == 0, "{}", came.err());
    ensure!(here.read("res/a")? == b"res/a" && here.read("b")? == b"--out=b");
    Ok(())
}

#[tokio::test]
async fn who_fails_for_want_of_a_file_that_is_here_is_told_so() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("data/in put.txt", "x")?
        .write("lib.sh", "true\n")?
        .write("read.py", "open('data/in put.txt')\n")?
        .write("use.sh", "#!/bin/bash\nsource ./lib.sh\n")?
        .write("other.py", "open('data/none.txt')\n")?;
    let told = |words: &[&str]| -> Result<Vec<String>> {
        let came = here.rgrid(words)?;
        ensure!(came.code == 1, "{}", came.err());
        let lines = came.err();
        Ok(lines
            .lines()
            .filter(|line| line.starts_with("rgrid: "))
            .map(ToOwned::to_owned)
            .collect())
    };
    let line = |name: &str, quoted: &str| format!("rgrid: {name} is here, and was not sent along; --include {quoted} sends it");
    assert_eq!(told(&["run", "read.py"])?, [line("data/in put.txt", "'data/in put.txt'")]);
    assert_eq!(told(&["run", "use.sh"])?, [line("lib.sh", "lib.sh")]);
    assert!(told(&["run", "other.py"])?.is_empty());
    let came = here.rgrid(&["run", "--include", "data/in put.txt", "read.py"])?;
    ensure!(came.code == 0, "{}", came.err());
    Ok(())
}
