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

const CASES: [Case; 13] = [
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
                "import os, sys\nprint(os.listdir(sys.argv[1]))\nopen(sys.argv[1] + '/b', 'w').write('b')\n",
            ),
            ("here/runs/1/a", "a"),
        ],
        lay: |top| Ok(symlink("runs/1", top.join("here/latest"))?),
        ..NONE
    },
    Case {
        name: "a converter that writes a name of elsewhere in its own directory, and one that writes beside what it was given",
        words: &["conv.py", "../in/data.csv", "../site"],
        files: &[
            (
                "here/conv.py",
                "import os, sys\nn = os.path.basename(sys.argv[1])\nopen(n, 'w').write(open(sys.argv[1]).read().upper())\n\
                 os.makedirs('site', exist_ok=True)\nopen('site/a', 'w').write('mine too')\n",
            ),
            ("in/data.csv", "abc"),
            ("site/a", "a"),
        ],
        ..NONE
    },
    Case {
        name: "links in a directory from elsewhere that are replaced",
        words: &["turn.py", "../site"],
        files: &[
            (
                "here/turn.py",
                "import os, sys\nd = sys.argv[1]\nopen(d + '/t', 'w').write('v2')\nos.replace(d + '/t', d + '/cur')\n\
                 os.unlink(d + '/latest')\nos.mkdir(d + '/latest')\nopen(d + '/latest/a', 'w').write('new')\n",
            ),
            ("site/v1.txt", "v1"),
            ("site/runs/1/a", "a"),
        ],
        lay: |top| {
            symlink("v1.txt", top.join("site/cur"))?;
            Ok(symlink("runs/1", top.join("site/latest"))?)
        },
        ..NONE
    },
    Case {
        name: "a link of one's own that leads out, and is named",
        words: &["write.py", "c", "--out=results/new.txt"],
        files: &[
            (
                "here/write.py",
                "import sys\nopen(sys.argv[1], 'a').write('more')\nopen(sys.argv[2].split('=')[1], 'w').write('new')\n",
            ),
            ("o/c", "c"),
            ("big/old", "old"),
        ],
        lay: |top| {
            symlink("../o/c", top.join("here/c"))?;
            Ok(symlink("../big", top.join("here/results"))?)
        },
        ..NONE
    },
    Case {
        name: "a first line of which nothing counts, since it is not what runs it",
        with: Some("bash"),
        words: &["lax.sh"],
        files: &[("here/lax.sh", "#!/bin/bash -e\nfalse\necho yes\n")],
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
pub(super) fn tree(top: &Path) -> Result<BTreeMap<PathBuf, String>> {
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
                command.env("PYTHONDONTWRITEBYTECODE", "1").args(case.words);
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
async fn nothing_is_written_through_a_link_from_elsewhere_nor_lost_behind_what_cannot_be_saved() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("../secret/keys", "keys")?
        .write("../shared/plain", "p")?
        .write("../z/f", "f")?
        .write(
            "w.py",
            "import os, sys\nopen(sys.argv[1], 'a').write('!')\nif len(sys.argv) > 2:\n    os.symlink('../x', sys.argv[2] + '/l')\n    open(sys.argv[3], 'a').write('+')\n",
        )?;
    // Laid by somebody else, perhaps.
    symlink("../secret/keys", here.path().join("../shared/in"))?;
    for words in [
        &["run", "w.py", "../shared/in"][..],
        &["run", "--input", "../shared/in=x", "w.py", "../shared/in"],
    ] {
        let came = here.rgrid(words)?;
        ensure!(came.code == 0, "{}", came.err());
        ensure!(here.read("../secret/keys")? == b"keys", "{words:?}");
    }
    ensure!(here.read("rgrid-1/in")? == b"keys!" && here.read("x")? == b"keys!");
    // A link that may not be made keeps nothing else from its place.
    let came = here.rgrid(&["run", "w.py", "../shared/plain", "../shared", "../z/f"])?;
    ensure!(came.code == 1 && came.err().contains("may lead out"), "{}", came.err());
    ensure!(here.read("../shared/plain")? == b"p!" && here.read("../z/f")? == b"f+");
    // What runs again runs without what is elsewhere being touched.
    here.write("c.json", "mine")?.write("../other/c.json", "o")?;
    let came = here.rgrid(&["run", "w.py", "../other/c.json"])?;
    ensure!(came.code == 0, "{}", came.err());
    let came = here.rgrid(&["rerun", "last"])?;
    ensure!(came.code == 0, "{}", came.err());
    ensure!(here.read("c.json")? == b"mine" && here.read("../other/c.json")? == b"o!");
    Ok(())
}

#[tokio::test]
async fn who_fails_for_want_of_a_file_that_is_here_is_told_so() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("data/in put.txt", "x")?
        .write("d[1]/f", "x")?
        .write("odd.py", "open('d[1]/f')\n")?
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
    let line = |name: &str, quoted: &str| format!("rgrid: {name} is here, but was not sent with the job; send it with --include {quoted}");
    assert_eq!(
        told(&["run", "--no-scan", "read.py"])?,
        [line("data/in put.txt", "'data/in put.txt'")]
    );
    assert_eq!(told(&["run", "--no-scan", "use.sh"])?, [line("lib.sh", "lib.sh")]);
    assert!(told(&["run", "other.py"])?.is_empty());
    assert_eq!(told(&["run", "--no-scan", "odd.py"])?, [line("d[1]/f", "'d[1]/f'")]);
    assert!(told(&["run", "--workdir", "--exclude", "data", "read.py"])?.is_empty());
    for (include, script) in [("data/in put.txt", "read.py"), ("d[1]/f", "odd.py"), ("d[1]", "odd.py")] {
        let came = here.rgrid(&["run", "--include", include, script])?;
        ensure!(came.code == 0, "{include}: {}", came.err());
    }
    let lines = here.command(&["run", "--each-line", "-", "-i", "-", "read.py"]).output()?;
    ensure!(lines.status.code() == Some(2), "{}", String::from_utf8_lossy(&lines.stderr));
    Ok(())
}
