//! `rgrid run` feels like running the script: the same output, the same exit code, the same files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;

use super::here::{Came, Here};

/// A script, what it is given, and what lies beside it.
struct Case {
    name: &'static str,
    /// What runs it here.
    with: &'static [&'static str],
    path: &'static str,
    script: &'static str,
    arguments: &'static [&'static str],
}

const PYTHON: &[&str] = &["python3"];

const CASES: [Case; 10] = [
    Case {
        name: "arguments arrive as they are",
        with: PYTHON,
        path: "args.py",
        script: "import sys\nprint(sys.argv)\n",
        arguments: &[
            "--name",
            "-n",
            "5",
            "",
            "ü ✓",
            "two words",
            "line\nbreak",
            "--",
            "--cpu=2",
            "*",
            "$HOME",
            "-d",
            "nothing.csv",
            "\\",
            "'\"",
        ],
    },
    Case {
        name: "files keep their relative paths",
        with: PYTHON,
        path: "tools/read.py",
        script: "import sys\nfor name in sys.argv[1:]:\n    print(name, open(name.split('=')[-1]).read())\n",
        arguments: &["data/x.csv", "./data/deep/y b.csv", "--in=data/x.csv", "data//x.csv"],
    },
    Case {
        name: "both streams and the exit code come through",
        with: PYTHON,
        path: "streams.py",
        script: "import sys\nfor n in range(2000):\n    print('out', n)\n    print('err', n, file=sys.stderr)\nsys.exit(42)\n",
        arguments: &[],
    },
    Case {
        name: "a message as the exit",
        with: PYTHON,
        path: "message.py",
        script: "raise SystemExit('ünlucky')\n",
        arguments: &[],
    },
    Case {
        name: "bytes that are not text",
        with: PYTHON,
        path: "binary.py",
        script: "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 300)\nsys.stderr.buffer.write(b'\\xff\\xc3')\n",
        arguments: &[],
    },
    Case {
        name: "one endless line, without its end",
        with: PYTHON,
        path: "line.py",
        script: "import sys\nfor n in range(300):\n    sys.stdout.write('x' * 10000)\n",
        arguments: &[],
    },
    Case {
        name: "nothing on standard input",
        with: PYTHON,
        path: "stdin.py",
        script: "import sys\nprint(repr(sys.stdin.read()))\n",
        arguments: &[],
    },
    Case {
        name: "outputs of every kind",
        with: PYTHON,
        path: "outputs.py",
        script: "import os\nos.makedirs('out/ü/deep', exist_ok=True)\nopen('out/ü/deep/r.txt', 'w').write('result')\n\
                 open('empty', 'w')\nopen('two words\\nand a line', 'w').write('x')\nopen('data/x.csv', 'a').write('more\\n')\n\
                 open('tool', 'w').write('#!/bin/sh\\n')\nos.chmod('tool', 0o755)\nopen('big.bin', 'wb').write(os.urandom(0) + b'b' * 3000000)\n",
        arguments: &["data/x.csv"],
    },
    Case {
        name: "outputs of a script that fails",
        with: PYTHON,
        path: "fails.py",
        script: "open('partial.txt', 'w').write('half')\nimport sys; sys.exit(3)\n",
        arguments: &[],
    },
    Case {
        name: "a shell script by its first line",
        with: &["bash"],
        path: "tool.sh",
        script: "#!/usr/bin/env bash\nset -u\nprintf '%q ' \"$@\"; echo\nnames=(a b); echo \"${names[@]}\" | tee names.txt\nexit 9\n",
        arguments: &["-x", "a b", ""],
    },
];

fn lay(here: &Here, case: &Case) -> Result<()> {
    here.write("data/x.csv", "a,b\n")?
        .write("data/deep/y b.csv", "c,d\n")?
        .write(case.path, case.script)?;
    Ok(())
}

#[tokio::test]
async fn a_script_on_the_grid_does_what_it_does_here() -> Result<()> {
    let grid = Grid::start().await?;
    for case in &CASES {
        let (alone, on_grid) = (Here::without_grid()?, Here::of(&grid)?);
        lay(&alone, case)?;
        lay(&on_grid, case)?;
        let mut command = Command::new(case.with[0]);
        command
            .args(&case.with[1..])
            .arg(case.path)
            .args(case.arguments)
            .current_dir(alone.path())
            .stdin(Stdio::null());
        let expected: Came = command.output()?.into();
        let words: Vec<&str> = ["run", case.path].into_iter().chain(case.arguments.iter().copied()).collect();
        let found = on_grid.rgrid(&words)?;
        ensure!(
            found == expected,
            "{}:\n{}{}\ninstead of\n{}{}\n",
            case.name,
            found.out(),
            found.err(),
            expected.out(),
            expected.err()
        );
        ensure!(
            on_grid.files()? == alone.files()?,
            "{}: {:?} instead of {:?}",
            case.name,
            on_grid.files()?.keys(),
            alone.files()?.keys()
        );
    }
    Ok(())
}

#[tokio::test]
async fn files_from_elsewhere_do_not_collide_and_programs_run_themselves() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("../elsewhere/x.csv", "one")?
        .write("../other/x.csv", "two")?
        .write("x.csv", "three")?;
    here.write(
        "cat.py",
        "import sys\nfor name in sys.argv[1:]:\n    print(name, open(name).read())\n",
    )?;
    let absolute = here.path().join("x.csv").display().to_string();
    let came = here.rgrid(&["run", "cat.py", "../elsewhere/x.csv", "../other/x.csv", &absolute])?;
    assert_eq!(
        (came.code, came.out()),
        (0, "rgrid-1/x.csv one\nrgrid-2/x.csv two\nx.csv three\n".to_owned()),
        "{}",
        came.err()
    );

    here.write("tool", "#!/bin/sh\necho \"$0 $1\"\nkill -9 $$\n")?;
    fs::set_permissions(here.path().join("tool"), fs::Permissions::from_mode(0o755))?;
    let came = here.rgrid(&["run", "--runtime", "sh", "tool", "a"])?;
    assert_eq!((came.code, came.out()), (137, "tool a\n".to_owned()));
    assert!(came.err().contains("killed by signal 9"), "{}", came.err());

    let came = here.rgrid(&[
        "run",
        "--program",
        "--env",
        "GREETING=hi there",
        "/bin/sh",
        "-c",
        "echo $GREETING; exit 5",
    ])?;
    assert_eq!((came.code, came.out(), came.err()), (5, "hi there\n".to_owned(), String::new()));
    Ok(())
}
