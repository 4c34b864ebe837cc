//! What goes along because the script's text names it, and what does not.

use std::process::Command;

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;
use serde_json::Value;

use crate::cli::here::Here;

/// The paths that would be sent, and why each.
fn sent(here: &Here, words: &[&str]) -> Result<Vec<(String, String)>> {
    let words = [&["run", "--dry-run", "--json"], words].concat();
    let told: Value = here.rgrid(&words)?.json()?;
    let files = told["files"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(files.iter().map(|file| (text(&file["path"]), text(&file["why"]))).collect())
}

fn paths(here: &Here, words: &[&str]) -> Result<Vec<String>> {
    Ok(sent(here, words)?.into_iter().map(|(path, _)| path).collect())
}

#[tokio::test]
async fn one_line_says_what_was_found_and_more_words_say_why() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("a.py", "import os\nprint(open('conf.ini').read(), sorted(os.listdir('data')))\n")?
        .write("conf.ini", "c")?
        .write("data/1", "1")?
        .write("data/2", "2")?
        .write("other", "o")?;
    let came = here.rgrid(&["run", "a.py"])?;
    ensure!(came.code == 0 && came.out() == "c ['1', '2']\n", "{}{}", came.out(), came.err());
    ensure!(
        came.err().trim() == "rgrid: also sends 3 files: 2 in data/, 1 named in a.py",
        "{}",
        came.err()
    );
    let came = here.rgrid(&["run", "-v", "a.py"])?;
    ensure!(came.err().contains("rgrid:   conf.ini (named in a.py)"), "{}", came.err());
    let told = sent(&here, &["a.py"])?;
    ensure!(told.contains(&("data/1".to_owned(), "in data/".to_owned())), "{told:?}");
    ensure!(paths(&here, &["--no-scan", "a.py"])? == ["a.py"]);
    ensure!(paths(&here, &["--no-imports", "a.py"])? == ["a.py"], "its earlier name");
    ensure!(paths(&here, &["--exclude", "data", "a.py"])? == ["a.py", "conf.ini"]);
    let came = here.rgrid(&["run", "--scan-files", "1", "a.py"])?;
    let said = "data (more than 1 file";
    ensure!(
        came.code == 1 && came.err().contains(said) && came.err().contains("--include data"),
        "{}",
        came.err()
    );
    Ok(())
}

#[tokio::test]
async fn what_looks_like_a_secret_is_named_and_sent_only_if_the_user_says_so() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let token = format!("{}{}", "ghp_", "a".repeat(36));
    here.write("a.py", "print(open('.env').read().strip())\nopen('notes.txt')\n")?
        .write(".env", "A=1")?
        .write("notes.txt", format!("use {token}"))?;
    let came = here.rgrid(&["run", "a.py"])?;
    for name in [".env", "notes.txt"] {
        ensure!(
            came.err()
                .contains(&format!("{name}, which a.py names, looks like a secret and was not sent")),
            "{}",
            came.err()
        );
    }
    ensure!(came.code == 1);
    let came = here.rgrid(&["run", "--include", ".env", "--include", "notes.txt", "a.py"])?;
    ensure!(came.code == 0 && came.out() == "A=1\n", "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn what_lies_above_keeps_its_place_within_a_project_and_where_the_user_says_so() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let script = "import os\nprint(open('../conf.ini').read(), os.path.basename(os.getcwd()))\nopen('out.txt', 'w').write('o')\nopen('../up.txt', 'w').write('u')\n";
    here.write("app/a.py", script)?.write("conf.ini", "c")?;
    let run = |words: &[&str]| -> Result<_> { Ok(here.command(words).current_dir(here.path().join("app")).output()?.into()) };
    // It is no project's: it is named, and sent when the user says so.
    let came: crate::cli::here::Came = run(&["run", "a.py"])?;
    ensure!(
        came.code == 1 && came.err().contains("../conf.ini, which a.py names, lies outside of the project"),
        "{}",
        came.err()
    );
    let came: crate::cli::here::Came = run(&["run", "--include", "../conf.ini", "a.py"])?;
    ensure!(
        came.out() == "c app\n" && here.read("app/out.txt")? == b"o",
        "{}{}",
        came.out(),
        came.err()
    );
    // What it makes outside of the current directory was not named: it is held back, and said.
    ensure!(
        came.code == 1 && !here.path().join("up.txt").exists() && came.err().contains("cannot save up.txt: it is outside"),
        "{}",
        came.err()
    );
    // In a repository it goes along unasked; outputs are named from the current directory.
    ensure!(
        Command::new("git")
            .args(["init", "-q", "."])
            .current_dir(here.path())
            .status()?
            .success()
    );
    let came: crate::cli::here::Came = run(&["run", "--output", "./*.txt", "a.py"])?;
    ensure!(came.code == 0 && came.out() == "c app\n", "{}{}", came.out(), came.err());
    ensure!(here.read("app/out.txt")? == b"o");
    // Arguments keep their place too.
    here.write("cat.py", "import sys\nprint(sys.argv[1], open(sys.argv[1]).read())\n")?;
    let came: crate::cli::here::Came = run(&["run", "../cat.py", "../conf.ini"])?;
    ensure!(came.code == 0 && came.out() == "../conf.ini c\n", "{}{}", came.out(), came.err());
    Ok(())
}

#[tokio::test]
async fn a_command_without_a_script_gets_the_directory_that_it_works_on_or_is_refused() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("fees.py", "def fee():\n    return 2\n")?
        .write("tests/__init__.py", "")?
        .write(
            "tests/test_fees.py",
            "import unittest, fees\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(fees.fee(), 2)\n",
        )?
        .write("ignored.bin", "x")?
        .write("tracked.bin", "x")?
        .write(".gitignore", "*.bin\n")?;
    ensure!(
        Command::new("git")
            .args(["init", "-q", "."])
            .current_dir(here.path())
            .status()?
            .success()
    );
    ensure!(
        Command::new("git")
            .args(["add", "-f", "tracked.bin"])
            .current_dir(here.path())
            .status()?
            .success()
    );
    let words = ["--program", "python3", "-m", "unittest"];
    let came = here.rgrid(&[&["run"], &words[..]].concat())?;
    ensure!(came.code == 0 && came.err().contains("Ran 1 test"), "{}{}", came.out(), came.err());
    let sent = paths(&here, &words)?;
    ensure!(
        sent.contains(&"tracked.bin".to_owned()) && !sent.contains(&"ignored.bin".to_owned()),
        "as git sees it: {sent:?}"
    );
    let whole = paths(&here, &["--workdir", "--no-scan", "fees.py"])?;
    ensure!(
        whole.contains(&"tracked.bin".to_owned()) && !whole.contains(&"ignored.bin".to_owned()),
        "{whole:?}"
    );
    let came = here.rgrid(&[&["run", "--scan-files", "2"], &words[..]].concat())?;
    ensure!(
        came.code == 2 && came.err().contains("works on the whole directory") && came.err().contains("--scan-files"),
        "{}",
        came.err()
    );
    ensure!(paths(&here, &["--program", "echo", "hi"])?.is_empty(), "it works on nothing");
    Ok(())
}

#[tokio::test]
async fn a_batch_is_planned_once_and_its_members_get_what_the_script_needs() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "a.py",
        "import sys\nopen('out', 'w').write(open('conf').read() + open(sys.argv[1]).read())\n",
    )?
    .write("conf", "c")?;
    for n in 0..5 {
        here.write(&format!("in/{n}.txt"), n.to_string())?;
    }
    let came = here.rgrid(&["run", "--batch", "in/*.txt", "a.py"])?;
    ensure!(came.code == 0, "{}", came.err());
    for n in 0..5 {
        ensure!(here.read(&format!("outputs/{n}.txt/out"))? == format!("c{n}").as_bytes());
    }
    Ok(())
}

#[tokio::test]
async fn no_job_writes_into_a_repository_that_is_here() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let script = "import os\nfor d in ['.git/hooks', 'new/.git/hooks']:\n    os.makedirs(d, exist_ok=True)\n    open(d + '/post-checkout', 'w').write('x')\n    open(d + '/../description', 'w').write('x')\nopen('out', 'w').write('o')\n";
    here.write("a.py", script)?;
    ensure!(
        Command::new("git")
            .args(["init", "-q", "."])
            .current_dir(here.path())
            .status()?
            .success()
    );
    let came = here.rgrid(&["run", "a.py"])?;
    ensure!(
        came.code == 1 && came.err().contains("belongs to a local git repository"),
        "{}",
        came.err()
    );
    ensure!(!here.path().join(".git/hooks/post-checkout").exists());
    ensure!(
        here.read("out")? == b"o" && here.read("new/.git/description")? == b"x",
        "a repository of the job's own comes back"
    );
    ensure!(
        !here.path().join("new/.git/hooks").exists() && came.err().contains("git would run it"),
        "but not what git would run in it: {}",
        came.err()
    );
    Ok(())
}
