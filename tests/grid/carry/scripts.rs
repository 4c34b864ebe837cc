//! A dozen scripts that know nothing of a grid.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use crate::cli::here::{Came, Here};

/// A script, what lies about, what it is given, and what `rgrid run` is told besides.
struct Case {
    name: &'static str,
    with: &'static str,
    words: &'static [&'static str],
    options: &'static [&'static str],
    stdin: Option<&'static str>,
    lay: fn(&Here) -> Result<()>,
}

const CASES: [Case; 10] = [
    Case {
        name: "a table summed up, with a list of files after an option",
        with: "python3",
        words: &[
            "sum.py",
            "--files",
            "data/a.csv",
            "data/b.csv",
            "--by",
            "city",
            "--out",
            "by city.csv",
        ],
        options: &[],
        stdin: None,
        lay: |here| {
            here.write("data/a.csv", "city,n\nBern,1\nWien,2\n")?
                .write("data/b.csv", "city,n\nWien,5\n")?
                .write(
                    "sum.py",
                    "import argparse, collections, csv\np = argparse.ArgumentParser()\np.add_argument('--files', nargs='+')\n\
                     p.add_argument('--by')\np.add_argument('--out')\na = p.parse_args()\nc = collections.Counter()\n\
                     for f in a.files:\n    for row in csv.DictReader(open(f)):\n        c[row[a.by]] += int(row['n'])\n\
                     w = csv.writer(open(a.out, 'w'))\nw.writerows(sorted(c.items()))\nprint(dict(c))\n",
                )?;
            Ok(())
        },
    },
    Case {
        name: "a package with modules of its own and data in it, from a directory of tools",
        with: "python3",
        words: &["tools/main.py", "in=data/x.txt"],
        options: &[],
        stdin: None,
        lay: |here| {
            here.write("tools/main.py", "import sys, common\nfrom lib.deep import shout\nprint(shout(common.load(sys.argv[1].split('=')[1])))\n")?
                .write("tools/common.py", "def load(path): return open(path).read().strip()\n")?
                .write("tools/lib/__init__.py", "")?
                .write("tools/lib/deep/__init__.py", "from ..words import END\nimport os\ndef shout(t):\n    here = os.path.dirname(__file__)\n    return t.upper() + END + open(os.path.join(here, 'mark.txt')).read()\n")?
                .write("tools/lib/words.py", "END = '!'\n")?
                .write("tools/lib/deep/mark.txt", "?")?
                .write("data/x.txt", "grüezi\n")?;
            Ok(())
        },
    },
    Case {
        name: "a filter of standard input",
        with: "python3",
        words: &["upper.py"],
        options: &[],
        stdin: Some("one\nzwei ü\n"),
        lay: |here| {
            here.write("upper.py", "import sys\nfor line in sys.stdin:\n    print(line.strip().upper())\n")?;
            Ok(())
        },
    },
    Case {
        name: "a shell pipeline over standard input",
        with: "bash",
        words: &["count.sh", "2"],
        options: &["-i", "-"],
        stdin: Some("b\na\nb\nc\nb\na\n"),
        lay: |here| {
            here.write(
                "count.sh",
                "#!/usr/bin/env bash\nset -euo pipefail\nsort | uniq -c | sort -rn | head -n \"$1\" | tee top.txt\n",
            )?;
            Ok(())
        },
    },
    Case {
        name: "whatever lies in a directory, links and empty directories too",
        with: "python3",
        words: &["tree.py", "project"],
        options: &[],
        stdin: None,
        lay: |here| {
            here.write("project/a b/ü.txt", "x")?
                .write("project/empty.txt", "")?
                .write("far/away.txt", "far")?
                .write(
                    "tree.py",
                    "import os, sys\nfor top, dirs, files in sorted(os.walk(sys.argv[1])):\n    print(top, sorted(dirs))\n    for f in sorted(files):\n        \
                     p = os.path.join(top, f)\n        print(p, os.path.islink(p) and os.readlink(p), repr(open(p).read()))\n",
                )?;
            fs::create_dir_all(here.path().join("project/nothing/at all"))?;
            symlink("a b/ü.txt", here.path().join("project/link"))?;
            Ok(())
        },
    },
    Case {
        name: "a configuration that no argument names",
        with: "python3",
        words: &["conf.py"],
        options: &["--include", "conf/**/*.json"],
        stdin: None,
        lay: |here| {
            here.write("conf/app/a.json", "{\"n\": 3}")?.write(
                "conf.py",
                "import json, glob\nprint([json.load(open(f)) for f in glob.glob('conf/**/*.json', recursive=True)])\n",
            )?;
            Ok(())
        },
    },
    Case {
        name: "all of the current directory",
        with: "bash",
        words: &["build.sh"],
        options: &["--workdir"],
        stdin: None,
        lay: |here| {
            here.write("src/one.txt", "1\n")?.write("src/two.txt", "2\n")?.write(
                "build.sh",
                "#!/bin/bash\nmkdir -p out/deep\ncat src/*.txt > out/deep/all.txt\nls -R out\n",
            )?;
            Ok(())
        },
    },
    Case {
        name: "modules that import one another, and a failure with its trace",
        with: "python3",
        words: &["fails.py", "--", "data.txt"],
        options: &[],
        stdin: None,
        lay: |here| {
            here.write("fails.py", "import sys\ntry:\n    import first\nexcept ValueError as e:\n    print('no:', e, open(sys.argv[2]).read(), file=sys.stderr)\n    sys.exit(7)\n")?
                .write("first.py", "import second\n")?
                .write("second.py", "raise ValueError('second')\n")?
                .write("data.txt", "data")?;
            Ok(())
        },
    },
    Case {
        name: "a rewritten input, a removed one and a new one in its directory",
        with: "python3",
        words: &["rewrite.py", "docs"],
        options: &[],
        stdin: None,
        lay: |here| {
            here.write("docs/a.md", "# a\n")?
                .write("docs/b.md", "# b\n")?
                .write("rewrite.py", "import sys, pathlib\nd = pathlib.Path(sys.argv[1])\n(d / 'a.md').write_text('# A\\n')\n(d / 'index.md').write_text('a, b\\n')\n")?;
            Ok(())
        },
    },
    Case {
        name: "a program in awk by its first line, and arguments that look like paths and are none",
        with: "bash",
        words: &["join.sh", "a.txt", "out/new.txt", "--to=out/other.txt", "../nothing"],
        options: &[],
        stdin: None,
        lay: |here| {
            here.write("a.txt", "1 2\n")?.write(
                "join.sh",
                "#!/bin/bash\nmkdir -p out; awk '{print $2, $1}' \"$1\" > \"$2\"; cp \"$2\" \"${3#--to=}\"; echo \"$@\"\n",
            )?;
            Ok(())
        },
    },
];

#[tokio::test]
async fn scripts_that_know_nothing_of_a_grid_do_there_what_they_do_here() -> Result<()> {
    let grid = Grid::start().await?;
    for case in &CASES {
        let (alone, on_grid) = (Here::without_grid()?, Here::of(&grid)?);
        (case.lay)(&alone)?;
        (case.lay)(&on_grid)?;
        let stdin = |here: &Here| -> Result<Stdio> {
            let Some(text) = case.stdin else { return Ok(Stdio::null()) };
            here.write("../stdin", text)?;
            Ok(fs::File::open(here.path().join("../stdin"))?.into())
        };
        let mut here = Command::new(case.with);
        here.args(case.words)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(alone.path())
            .stdin(stdin(&alone)?);
        let expected: Came = here.output()?.into();
        let words: Vec<&str> = [&["run"], case.options, case.words].concat();
        let mut found: Came = on_grid.command(&words).stdin(stdin(&on_grid)?).output()?.into();
        // The one line that says what goes along unasked.
        let own = found
            .err()
            .lines()
            .filter(|line| !line.starts_with("rgrid: also sends "))
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        found.err = own.into_bytes();
        ensure!(
            found == expected,
            "{}:\n{}{}\ninstead of\n{}{}\n",
            case.name,
            found.out(),
            found.err(),
            expected.out(),
            expected.err()
        );
        let (left, right) = (on_grid.files()?, alone.files()?);
        ensure!(left == right, "{}: {:?} instead of {:?}", case.name, left.keys(), right.keys());
    }
    Ok(())
}

#[tokio::test]
async fn a_pipe_reaches_a_container_whole() -> Result<()> {
    let mut grid = Grid::start_only(&[Part::Api, Part::Watcher]).await?;
    grid.run_with(Part::Runner(1), &["--executor", "docker"])?;
    let here = Here::of(&grid)?;
    here.write(
        "sum.py",
        "import sys, hashlib\ndata = sys.stdin.buffer.read()\nprint(len(data), hashlib.sha256(data).hexdigest())\n",
    )?
    .write("none.py", "print('did not read')\n")?;
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| u8::try_from(n * 7 % 251).unwrap_or(0)).collect();
    here.write("data.bin", &data)?;
    let expected = format!("{} {}\n", data.len(), bus::ids::Digest::of(&data));
    let piped = |script: &str| -> Result<Came> {
        let stdin = fs::File::open(here.path().join("data.bin"))?;
        Ok(here.command(&["run", "--executor", "docker", script]).stdin(stdin).output()?.into())
    };
    let came = piped("sum.py")?;
    assert_eq!((came.code, came.out()), (0, expected), "{}", came.err());
    let came = piped("none.py")?;
    assert_eq!((came.code, came.out()), (0, "did not read\n".to_owned()), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn what_a_first_line_tells_env_holds_for_the_job() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let body = "import os, sys\nprint(os.environ.get('GREETING'), sys.flags.dont_write_bytecode, sys.flags.optimize)\n";
    for (name, line) in [
        ("split", "#!/usr/bin/env -S GREETING='hello world' python3 -O"),
        ("bare", "#!/usr/bin/env GREETING=hello python3"),
        ("chdir", "#!/usr/bin/env -S -C /tmp python3"),
    ] {
        here.write(name, format!("{line}\n{body}"))?;
        fs::set_permissions(here.path().join(name), fs::Permissions::from_mode(0o755))?;
    }
    here.write("plain", format!("#!/usr/bin/env -S -i GREETING=hello python3 -O\n{body}"))?;
    for (words, expected) in [
        (&["split"][..], "hello world 1 1\n"),
        (&["bare"], "hello 1 0\n"),
        (&["--env", "GREETING=hi", "split"], "hi 1 1\n"),
        // It may not be executed: its first line tells what runs it, and no more, as with `python3 plain`.
        (&["plain"], "None 1 0\n"),
        (&["--runtime", "python", "chdir"], "None 1 0\n"),
    ] {
        let came = here.rgrid(&[&["run"], words].concat())?;
        assert_eq!((came.code, came.out().as_str()), (0, expected), "{words:?}: {}", came.err());
    }
    let came = here.rgrid(&["run", "chdir"])?;
    let err = came.err();
    ensure!(
        came.code == 2 && err.contains("chdir, line 1 changes to the directory `/tmp`") && err.contains("--runtime python"),
        "{err}"
    );
    // Each job of a batch has it too.
    here.write(
        "check",
        "#!/usr/bin/env -S GREETING=hello python3\nimport os\nassert os.environ['GREETING'] == 'hello'\n",
    )?;
    fs::set_permissions(here.path().join("check"), fs::Permissions::from_mode(0o755))?;
    let came = here.rgrid(&["run", "--array", "1-2", "check"])?;
    ensure!(came.code == 0, "{}{}", came.out(), came.err());
    Ok(())
}
