//! What a stranger wrote acts with none of the user's rights: a script's head, a cloned repository, what a job leaves.

use std::{fs, os::unix::fs::symlink, process::Command};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, rgrid};
use reqwest::Method;
use serde_json::{Value, json};

use super::here::Here;

/// What must never leave this machine.
const KEY: &str = "the user's very own key";

/// Each file that would go along, by its path there.
fn sent(told: &Value) -> Vec<&str> {
    let files = told["files"].as_array().map_or(&[][..], Vec::as_slice);
    files.iter().filter_map(|file| file["path"].as_str()).collect()
}

#[test]
fn a_scripts_head_names_neither_files_nor_secrets_nor_where_it_runs() -> Result<()> {
    let here = Here::without_grid()?;
    for (head, option, written) in [
        ("--input ../.ssh=k", "--input", "rgrid run --input=../.ssh=k s.py"),
        ("-i /etc/shadow", "--stdin", "rgrid run --stdin=/etc/shadow s.py"),
        ("--cpu 1 --workdir", "--workdir", "rgrid run --workdir s.py"),
        ("--secret PROD", "--secret", "rgrid run --secret=PROD s.py"),
        ("--include '../a b'", "--include", "rgrid run '--include=../a b' s.py"),
        ("--exclude x", "--exclude", "rgrid run --exclude=x s.py"),
        ("--requirements /etc/passwd", "--requirements", "--requirements=/etc/passwd"),
        ("--executor process", "--executor", "--executor=process"),
        ("--image evil", "--image", "--image=evil"),
        ("--runtime image:evil", "an image", "--runtime=image:evil"),
        ("--runtime-for py=sh", "--runtime-for", "--runtime-for=py=sh"),
        ("--program", "--program", "--program"),
        ("--env HOME", "a variable of this machine", "--env=HOME"),
        ("--env A=b --env=HOME", "a variable of this machine", "--env=HOME"),
        ("--env-file ../x.env", "--env-file", "--env-file=../x.env"),
        ("--each-line /etc/passwd", "--each-line", "--each-line=/etc/passwd"),
        ("--batch '/etc/*'", "--batch", "'--batch=/etc/*'"),
        ("--depends-on last", "--depends-on", "--depends-on=last"),
        ("--idempotency-key x", "--idempotency-key", "--idempotency-key=x"),
        ("--scan-bytes 1TB", "--scan-bytes", "--scan-bytes=1TB"),
        ("--no-defaults", "--no-defaults", "--no-defaults"),
        ("--data-dir /x", "--data-dir", "--data-dir=/x"),
        ("--key-file ../k", "--key-file", "--key-file=../k"),
        ("--detach", "--detach", "--detach"),
    ] {
        here.write("s.py", format!("#!/usr/bin/env python3\n# rgrid: {head}\nprint(1)\n"))?;
        let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
        let err = came.err();
        ensure!(
            came.code == 2 && err.contains("s.py, line 2: a script cannot") && err.contains(option) && err.contains(written),
            "{head}: {} {err}",
            came.code
        );
        ensure!(err.lines().count() == 1, "more than a sentence: {err}");
    }
    Ok(())
}

#[tokio::test]
async fn a_scripts_head_says_what_the_job_may_use() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "s.py",
        "# rgrid: --cpu 1 --memory 1GB --timeout 10m --retries 2 --retry-on 75 --label a=b --name n --priority low\n\
         # rgrid: --env MODE=fast --runtime python --output out --keep-deleted --no-scan -v\nprint(1)\n",
    )?;
    let told = here.rgrid(&["run", "--dry-run", "--json", "s.py"])?.json()?;
    assert_eq!(told["job"]["resources"]["cpu_milli"], 1000);
    assert_eq!(told["job"]["env"], json!(["MODE"]));
    Ok(())
}

#[tokio::test]
async fn a_projects_file_counts_once_it_is_trusted_and_no_longer_when_it_changes() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os\nprint(os.environ.get('MODE'))\n")?
        .write("rgrid.toml", "[run.env]\nMODE = \"fast\"\n")?;
    let refused = |what: &str| -> Result<()> {
        let came = here.rgrid(&["run", "s.py"])?;
        let err = came.err();
        ensure!(
            came.code == 2 && err.contains(what) && err.contains("rgrid trust ") && err.contains("--no-defaults"),
            "{} {err}",
            came.code
        );
        Ok(())
    };
    refused("is not trusted yet")?;
    // It says nothing of the grid, so that no other verb minds; and without it, the script runs.
    here.rgrid(&["list"])?.line()?;
    assert_eq!(here.rgrid(&["run", "--no-defaults", "s.py"])?.line()?, "None");
    here.trusted()?;
    assert_eq!(here.rgrid(&["run", "s.py"])?.line()?, "fast");
    let listed = here.rgrid(&["trust", "list", "--json"])?.json()?;
    ensure!(
        listed["trusted"][0]["state"] == "trusted" && listed["trusted"][0]["path"] == here.path().join("rgrid.toml").display().to_string(),
        "{listed}"
    );
    here.write("rgrid.toml", "[run.env]\nMODE = \"other\"\n")?;
    refused("has changed since you trusted it")?;
    ensure!(here.rgrid(&["trust", "list"])?.line()?.contains("changed"), "not said");
    here.trusted()?;
    assert_eq!(here.rgrid(&["run", "s.py"])?.line()?, "other");
    here.rgrid(&["trust", "rm"])?.line()?;
    refused("is not trusted yet")?;
    assert_eq!(here.rgrid(&["trust", "rm"])?.code, 2);
    // On a terminal, it is asked for once.
    let ask = |steps: &str| -> Result<String> {
        let mut command = Command::new("python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/grid/scripts/terminal.py"))
            .arg(steps)
            .arg(rgrid())
            .args(["run", "s.py"]);
        let template = here.command(&["run"]);
        command.current_dir(here.path()).env_clear().env("TERM", "dumb");
        for (name, value) in template.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
    };
    let said = ask(r#"["Trust this file", "n"]"#)?;
    ensure!(
        said.contains("MODE = \"other\"") && said.contains("is not trusted yet") && said.contains("rgrid trust "),
        "{said}"
    );
    let said = ask(r#"["Trust this file", "y"]"#)?;
    ensure!(said.contains("other\r\n"), "{said}");
    assert_eq!(here.rgrid(&["run", "s.py"])?.line()?, "other");
    Ok(())
}

#[test]
fn what_a_trusted_projects_file_names_stays_below_the_project() -> Result<()> {
    let here = Here::without_grid()?;
    fs::write(here.beside("key"), KEY)?;
    symlink(here.beside("key"), here.path().join("link"))?;
    let outside = here.beside("key").display().to_string();
    for said in [
        "key-file = \"../key\"".to_owned(),
        "key-file = \"link\"".to_owned(),
        "[run]\nenv-file = \"../key\"".to_owned(),
        "[run]\nenv-file = \"link\"".to_owned(),
        "[run]\ninclude = [\"s.py\", \"../key\"]".to_owned(),
        "[run]\ninclude = \"link\"".to_owned(),
        format!("[run]\nstdin = \"{outside}\""),
        "[run.input]\n\"../key\" = \"k\"".to_owned(),
        "[run]\nbatch = \"../*\"".to_owned(),
        "[run]\neach-line = \"../key\"".to_owned(),
        "[run]\nrequirements = \"link\"".to_owned(),
    ] {
        here.write("s.py", "print(1)\n")?.write("rgrid.toml", format!("{said}\n"))?;
        here.trusted()?;
        let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
        ensure!(
            came.code == 2 && came.err().contains("is not below the project") && came.err().contains("rgrid.toml, line "),
            "{said}: {} {}",
            came.code,
            came.err()
        );
    }
    here.write("rgrid.toml", "[run]\nenv-file = \"p.env\"\n")?
        .write("p.env", "A=b\nPATH\n")?;
    here.trusted()?;
    let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
    ensure!(
        came.code == 2 && came.err().contains("reads the variable PATH of this machine"),
        "{}",
        came.err()
    );
    Ok(())
}

#[tokio::test]
async fn a_scripts_packages_and_modules_name_no_file_outside_its_project() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let key = here.beside("key.txt");
    fs::write(&key, KEY)?;
    let wheel = here.beside("own-1-py3-none-any.whl");
    fs::write(&wheel, KEY)?;
    let block = |line: &str| format!("# /// script\n# dependencies = [{line}]\n# ///\nprint(1)\n");
    for (script, list) in [
        (block(&format!("'own @ file://{}'", wheel.display())), String::new()),
        ("print(1)\n".to_owned(), format!("-r {}\n", key.display())),
        ("print(1)\n".to_owned(), "-c ../key.txt\nsix\n".to_owned()),
        ("print(1)\n".to_owned(), "-r linked.txt\n".to_owned()),
        ("print(1)\n".to_owned(), "--find-links ..\nsix\n".to_owned()),
        ("print(1)\n".to_owned(), format!("{}\n", wheel.display())),
        ("print(1)\n".to_owned(), "-r .env\n".to_owned()),
    ] {
        here.write("s.py", &script)?.write("requirements.txt", &list)?.write(".env", KEY)?;
        let _ = fs::remove_file(here.path().join("linked.txt"));
        symlink(&key, here.path().join("linked.txt"))?;
        let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
        ensure!(
            came.code == 2 && (came.err().contains("outside the project") || came.err().contains("looks like a secret")),
            "{script}{list}: {} {}",
            came.code,
            came.err()
        );
    }
    // A list that is itself a link out is not read, and neither are linked modules.
    fs::remove_file(here.path().join("requirements.txt"))?;
    symlink(&key, here.path().join("requirements.txt"))?;
    fs::write(here.beside("module.py"), KEY)?;
    symlink(here.beside("module.py"), here.path().join("helper.py"))?;
    fs::create_dir(here.path().join("pkg"))?;
    here.write("pkg/__init__.py", "")?;
    symlink(here.beside("module.py"), here.path().join("pkg/inner.py"))?;
    here.write("s.py", "import helper, pkg\nfrom pkg import inner\nprint(1)\n")?;
    let came = here.rgrid(&["run", "--dry-run", "--json", "s.py"])?;
    let told = came.json()?;
    assert_eq!(sent(&told), ["s.py", "pkg/__init__.py"], "{}", came.err());
    ensure!(came.err().contains("requirements.txt leads out of the project"), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn what_others_would_run_unasked_stays_on_the_grid_unless_it_is_named() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let held = [
        ".envrc",
        ".vscode/tasks.json",
        "rgrid.toml",
        "sub/conftest.py",
        "sub/.GIT/hooks/post-checkout",
        ".bashrc",
    ];
    here.write(
        "s.py",
        format!(
            "import os, sys\nfor path in {held:?} + ['out.txt']:\n    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)\n    open(path, 'w').write('x')\nos.symlink('out.txt', '.idea')\n"
        ),
    )?;
    let came = here.rgrid(&["run", "s.py"])?;
    assert_eq!(came.code, 1, "{}", came.err());
    for path in held.iter().chain(&[".idea"]) {
        ensure!(came.err().contains(&format!("cannot save {path}: ")), "{path}: {}", came.err());
    }
    let files: Vec<_> = here.files()?.into_keys().map(|path| path.display().to_string()).collect();
    assert_eq!(files, ["out.txt", "s.py"]);
    // A script's head asks for nothing of it, and neither does a pattern that means everything.
    let script = String::from_utf8(here.read("s.py")?)?;
    here.write("t.py", format!("# rgrid: --output .envrc --output out.txt\n{script}"))?;
    for words in [
        &["run", "t.py"][..],
        &["run", "--output", ".", "s.py"],
        &["run", "--output", ".env*", "s.py"],
    ] {
        let came = here.rgrid(words)?;
        ensure!(came.code == 1 && !here.path().join(".envrc").exists(), "{words:?}: {}", came.err());
    }
    let came = here.rgrid(&["download", "last", "-o", "all"])?;
    ensure!(came.code == 1 && !here.path().join("all/.envrc").exists(), "{}", came.err());
    here.rgrid(&["download", "last", "--file", ".envrc", "-o", "there"])?.line()?;
    ensure!(here.read("there/.envrc")? == b"x");
    here.rgrid(&["run", "--output", ".envrc", "--output", ".vscode", "s.py"])?.line()?;
    ensure!(here.read(".envrc")? == b"x" && here.read(".vscode/tasks.json")? == b"x" && !here.path().join(".bashrc").exists());
    Ok(())
}

#[tokio::test]
async fn a_script_changes_nothing_outside_of_the_current_directory_that_is_not_named() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    // All in one project, of which the script's text names a file above.
    fs::create_dir(here.path().join(".git"))?;
    here.write("conf.ini", "mine")?.write("named.txt", "mine")?.write(
        "sub/s.py",
        "import os, sys\nopen('../conf.ini', 'r+').write('evil')\nopen('../new.txt', 'w').write('evil')\n\
         if len(sys.argv) > 1:\n    open(sys.argv[1], 'w').write('changed')\nopen('own', 'w').write('o')\n",
    )?;
    let run =
        |words: &[&str]| -> Result<super::here::Came> { Ok(here.command(words).current_dir(here.path().join("sub")).output()?.into()) };
    let came = run(&["run", "s.py", "../named.txt"])?;
    ensure!(
        came.code == 1
            && came.err().contains("cannot save conf.ini: it is outside of the current directory")
            && came.err().contains("cannot save new.txt: "),
        "{} {}",
        came.code,
        came.err()
    );
    ensure!(here.read("conf.ini")? == b"mine" && !here.path().join("new.txt").exists());
    ensure!(
        here.read("sub/own")? == b"o" && here.read("named.txt")? == b"changed",
        "what is named comes back"
    );
    Ok(())
}

#[tokio::test]
async fn words_of_others_do_nothing_to_a_terminal_and_a_log_stays_as_it_is() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let evil = "a\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}b\nrgrid: all is well";
    here.write(
        "s.py",
        "import sys\nprint('x\\x1b[31m\\u202e')\nopen('o\\x1b[2J\\u202ex', 'w').write('o')\nsys.exit(3)\n",
    )?;
    let label = format!("k={evil}");
    let came = here.rgrid(&["run", "--name", evil, "--label", &label, "-v", "s.py", evil])?;
    assert_eq!(came.out(), "x\u{1b}[31m\u{202e}\n", "a log's bytes are the job's own");
    let job = grid.get("jobs").await?["jobs"][0]["id"].as_str().unwrap_or_default().to_owned();
    let mut said = came.err();
    for words in [
        &["list"][..],
        &["status", &job],
        &["history", &job],
        &["download", &job, "--list"],
        &["download", &job, "-o", "d"],
        &["status", &job, "--json"],
        &["download", &job, "--list", "--json"],
        &["run", "--dry-run", "--name", evil, "s.py", evil],
        &["run", "--dry-run", "--json", "--name", evil, "s.py", evil],
        &["run", "s.py\u{1b}[2J"],
        &["status", "\u{1b}[2J"],
        &["doctor"],
        &["workers"],
    ] {
        let came = here.rgrid(words)?;
        said += &format!("{}{}", came.out(), came.err());
    }
    for c in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'] {
        ensure!(!said.contains(c), "{c:?} in {said:?}");
    }
    ensure!(
        !said.lines().any(|line| line.starts_with("rgrid: all is well")),
        "a line was made up: {said}"
    );
    Ok(())
}

#[test]
fn no_program_and_no_grid_is_taken_from_where_a_stranger_could_lay_it() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let here = Here::without_grid()?;
    let marker = here.beside("ran");
    here.write(".rgrid/bin/nats-server", format!("#!/bin/sh\ntouch {}\n", marker.display()))?;
    fs::set_permissions(here.path().join(".rgrid/bin/nats-server"), fs::Permissions::from_mode(0o755))?;
    let dir = here.beside("data");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let up = |path: &str| -> Result<super::here::Came> {
        let mut command = here.command(&["up", "--detach", "--data-dir"]);
        // PostgreSQL is looked for after NATS, and there is none.
        command.arg(&dir).env("PATH", path).env("RGRID_POSTGRES_BIN", here.beside("none"));
        Ok(command.output()?.into())
    };
    let came = up("/usr/bin:/bin")?;
    ensure!(came.code == 1 && !marker.exists(), "{}", came.err());
    fs::write(dir.join("grid.json"), "{}")?;
    for (mode, link, words) in [(0o777, false, "chmod go-w"), (0o700, true, "contains the link")] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode))?;
        if link {
            symlink("/dev/null", dir.join("secrets.key"))?;
        }
        for came in [
            up("/usr/bin:/bin")?,
            here.command(&["list", "--data-dir"]).arg(&dir).output()?.into(),
        ] {
            ensure!(
                came.code == 1 && came.err().contains(words),
                "{words}: {} {}",
                came.code,
                came.err()
            );
        }
    }
    Ok(())
}

/// All at once, as a repository that was cloned and is only looked at: `rgrid run` of its script, with and without trust in its file.
#[tokio::test]
async fn a_hostile_repository_gets_nothing() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    for (path, content) in [
        (".ssh/id_ed25519", KEY),
        ("secret.txt", KEY),
        ("own-1-py3-none-any.whl", KEY),
        ("lib.py", KEY),
    ] {
        let path = here.beside(path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, content)?;
    }
    for (link, to) in [
        ("keys", ".ssh"),
        ("notes.txt", "secret.txt"),
        ("helper.py", "lib.py"),
        ("requirements.txt", "secret.txt"),
    ] {
        symlink(here.beside(to), here.path().join(link))?;
    }
    here.write(
        "rgrid.toml",
        "url = \"http://127.0.0.1:1\"\nkey-file = \"../secret.txt\"\n[run]\ninclude = \"../.ssh\"\nstdin = \"/etc/shadow\"\nenv = [\"PATH\"]\nsecret = \"PROD\"\n",
    )?
    .write(
        "head.py",
        "# rgrid: --input ../.ssh=k -i /etc/shadow --workdir --secret PROD --env PATH\nprint(open('k/id_ed25519').read())\n",
    )?
    .write(
        "s.py",
        "import os, helper\nfor path in ['keys/id_ed25519', 'notes.txt', '../secret.txt', '../.ssh/id_ed25519']:\n    open(path)\n\
         os.listdir('keys')\nos.listdir('..')\n",
    )?
    .write(
        "plain.py",
        "import os\nfor path in ['.git/hooks/post-checkout', '.envrc', 'rgrid.toml', 'notes.txt', 'keys/id_ed25519']:\n    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)\n    \
         open(path, 'w').write('planted')\n",
    )?;
    fs::create_dir(here.path().join(".git"))?;
    fs::write(here.path().join(".git/HEAD"), "ref: refs/heads/main\n")?;
    let run = |words: &[&str]| here.rgrid(words);
    let hostile = String::from_utf8(here.read("rgrid.toml")?)?;
    here.write("rgrid.toml", "[run]\nenv = [\"PATH\"]\nsecret = \"PROD\"\n")?;
    let came = run(&["run", "s.py"])?;
    ensure!(came.code == 2 && came.err().contains("rgrid trust"), "{}", came.err());
    let came = run(&["run", "--no-defaults", "--dry-run", "--json", "s.py"])?;
    assert_eq!(sent(&came.json()?), ["s.py"], "{}", came.err());
    // Trust itself lets it name nothing outside.
    here.write("rgrid.toml", hostile)?.trusted()?;
    let came = run(&["run", "s.py"])?;
    ensure!(came.code == 2 && came.err().contains("is not below the project"), "{}", came.err());
    here.write("rgrid.toml", "")?;
    let came = run(&["run", "head.py"])?;
    ensure!(
        came.code == 2 && came.err().contains("head.py, line 1: a script cannot"),
        "{}",
        came.err()
    );
    let came = run(&["run", "plain.py"])?;
    ensure!(came.code == 1 && came.err().contains(".envrc"), "{}", came.err());
    assert_eq!(fs::read_to_string(here.beside(".ssh/id_ed25519"))?, KEY);
    assert_eq!(fs::read_to_string(here.beside("secret.txt"))?, KEY);
    for planted in [".git/hooks/post-checkout", ".envrc"] {
        ensure!(!here.path().join(planted).exists(), "{planted} was planted");
    }
    assert_eq!(here.read("rgrid.toml")?, b"");
    // Nothing of what is the user's ever reached the grid.
    let stored = async |content: &[u8]| -> Result<bool> {
        let digest = bus::ids::Digest::of(content);
        let answer = grid.request(Method::GET, &format!("files/{digest}")).send().await?;
        Ok(answer.status().is_success())
    };
    ensure!(stored(&here.read("plain.py")?).await?, "what was sent is there");
    ensure!(!stored(KEY.as_bytes()).await?, "the key was sent");
    Ok(())
}
