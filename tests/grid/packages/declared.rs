//! Where packages are declared, and what a script finds of them.

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::{INSTALLED, STORED, installed_first, logged, saying, wheel};
use crate::cli::here::Here;

const SCRIPT: &str = "import hail, os, subprocess, sys\nprint(hail.said())\nsubprocess.run([sys.executable, '-m', 'hail'], check=True)\n\
                      subprocess.run(['hail-cli'], check=True)\nprint(sys.prefix != sys.base_prefix, 'pip' in sys.modules)\n\
                      open('out.txt', 'w').write(hail.said())\n";

#[tokio::test]
async fn a_requirements_file_is_installed_once_and_found_by_every_worker() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let first = installed_first(&here, SCRIPT, "hello\nhello\nhello\nTrue False\n")?;
    assert_eq!(here.read("out.txt")?, b"hello");

    // The second time as if there were nothing to install, whatever is said of it in comments elsewhere.
    let second = here.rgrid(&["run", "s.py"])?;
    assert_eq!((second.code, second.out(), second.err().as_str()), (0, first.out(), ""));
    logged(&grid, Part::Runner(1), STORED, 1).await?;

    // Another worker takes what the first one stored.
    grid.kill(Part::Runner(1))?;
    grid.run(Part::Runner(2))?;
    let elsewhere = here.rgrid(&["run", "s.py"])?;
    assert_eq!((elsewhere.code, elsewhere.out()), (0, first.out()), "{}", elsewhere.err());
    ensure!(
        elsewhere.err().starts_with("rgrid: fetching 1 package (requirements.txt)"),
        "{}",
        elsewhere.err()
    );
    ensure!(!grid.log(Part::Runner(2)).contains(INSTALLED), "{}", grid.log(Part::Runner(2)));

    // Other packages are another environment.
    let file = wheel(&here.path().join("wheels"), "hail", "2.0", "def said(): return 'hi'\n", "")?;
    here.write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    let changed = here.rgrid(&["run", "s.py"])?;
    assert_eq!(
        (changed.code, changed.out().as_str()),
        (0, "hi\nhi\nhi\nTrue False\n"),
        "{}",
        changed.err()
    );
    Ok(())
}

#[tokio::test]
async fn packages_are_declared_in_the_script_in_a_project_and_by_name() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let (one, two) = (saying(&here, "one", "1")?, saying(&here, "two", "2")?);
    let dir = here.path().join("wheels").display().to_string();
    let inline = format!(
        "# /// script\n# requires-python = '>=3.8'\n# dependencies = ['one @ file://{dir}/{one}']\n# ///\n\
         import importlib.util as u\nprint(*[name for name in ('one', 'two') if u.find_spec(name)])\n"
    );
    let plain = inline.rsplit_once("# ///\n").map(|(_, rest)| rest).unwrap_or_default();
    here.write("inline.py", &inline)?
        .write("plain.py", plain)?
        .write(
            "pyproject.toml",
            format!("[project]\nname = 'x'\ndependencies = ['two @ file://{dir}/{two}', 'one @ file://{dir}/{one}']\n"),
        )?
        .write("deep/er/plain.py", plain)?
        .write("other.txt", format!("--no-index\n--find-links {dir}\ntwo\n"))?;
    let said = |words: &[&str]| -> Result<String> {
        let came = here.rgrid(&[&["run"], words].concat())?;
        ensure!(came.code == 0, "{words:?}: {}", came.err());
        Ok(came.out())
    };
    assert_eq!(said(&["inline.py"])?, "one\n");
    assert_eq!(said(&["plain.py"])?, "one two\n");
    assert_eq!(said(&["deep/er/plain.py"])?, "one two\n", "the project is above it");
    assert_eq!(said(&["--no-requirements", "plain.py"])?, "\n");
    assert_eq!(said(&["--requirements", "other.txt", "inline.py"])?, "two\n");

    // What would be installed is shown, and counts as what the result follows from.
    let told = here.rgrid(&["run", "--dry-run", "--json", "inline.py"])?.json()?;
    assert_eq!(told["job"]["dependencies"]["declared_in"], "inline.py", "{told}");
    let words = here.rgrid(&["run", "--dry-run", "plain.py"])?.line()?;
    ensure!(words.contains("packages:  2 packages (pyproject.toml)"), "{words}");
    ensure!(here.rgrid(&["run", "--reuse", "plain.py"])?.code == 0);
    grid.projected().await?;
    let again = here.rgrid(&["run", "--reuse", "plain.py"])?;
    ensure!(again.err().contains("the same job ran before"), "{}", again.err());
    let others = here.rgrid(&["run", "--reuse", "--requirements", "other.txt", "plain.py"])?;
    assert_eq!((others.code, others.out().as_str(), others.err().as_str()), (0, "two\n", ""));
    Ok(())
}

#[tokio::test]
async fn a_batch_installs_once_for_all_of_its_jobs() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let file = saying(&here, "hail", "hello")?;
    here.write("s.py", "import hail, sys\nprint(hail.said(), sys.argv[1])\n")?
        .write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    let came = here.rgrid(&["run", "--array", "1-8", "s.py", "{}"])?;
    ensure!(came.code == 0, "{}{}", came.out(), came.err());
    assert_eq!(grid.log(Part::Runner(1)).matches(INSTALLED).count(), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_not_read_is_said_once_where_packages_are_needed() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let dir = here.path().join("wheels").display().to_string();
    let file = saying(&here, "hail", "hello")?;
    here.write("pipenv/plain.py", "import os\n")?
        .write("pipenv/needy.py", "import os, gone\n")?
        .write("pipenv/Pipfile", "[packages]\ngone = '*'\n")?
        .write("locked/s.py", "import hail\nprint(hail.said())\n")?
        .write(
            "locked/pyproject.toml",
            format!("[project]\nname = 'x'\ndependencies = ['hail @ file://{dir}/{file}']\n"),
        )?
        .write("locked/uv.lock", "version = 1\n")?
        .write("grouped/s.py", "print('it ran')\n")?
        .write("grouped/pyproject.toml", "[tool.hatch.envs.default]\ndependencies = ['six']\n")?;
    let said = |words: &[&str]| -> Result<(i32, String)> {
        let came = here.rgrid(&[&["run"], words].concat())?;
        Ok((came.code, came.err()))
    };
    assert_eq!(said(&["pipenv/plain.py"])?, (0, String::new()));
    let (code, err) = said(&["pipenv/needy.py"])?;
    ensure!(
        code == 1
            && err.starts_with("rgrid: pipenv/Pipfile is not read, and no packages are installed; name the packages with --requirements"),
        "{err}"
    );
    let (code, err) = said(&["--requirements", "pipenv/Pipfile", "pipenv/needy.py"])?;
    ensure!(code == 2 && err.contains("rgrid does not read a Pipfile"), "{err}");
    let (code, err) = said(&["--array", "1-3", "locked/s.py"])?;
    ensure!(code == 0 && err.matches("uv.lock is not read").count() == 1, "{err}");
    let (code, err) = said(&["grouped/s.py"])?;
    ensure!(
        code == 0 && err.contains("pyproject.toml, line 2 names packages with `tool.hatch.envs.default.dependencies`"),
        "{err}"
    );
    // An index of the project's beside a list that names none.
    here.write("two/s.py", "import hail\n")?
        .write("two/requirements.txt", "hail\n")?
        .write("two/pyproject.toml", "[[tool.uv.index]]\nurl = 'https://own.example/simple'\n")?;
    let (code, err) = said(&["two/s.py"])?;
    ensure!(
        code == 2 && err.contains("two/pyproject.toml, line 1 names an index, and two/requirements.txt"),
        "{err}"
    );
    Ok(())
}
