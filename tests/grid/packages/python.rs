//! The Python that a script needs, where it names no packages.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use crate::cli::here::Here;

/// An interpreter that says that it is of another version.
const OTHER: &str = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'Python 3.77.1'; else OTHER=1 exec python3 \"$@\"; fi\n";

#[tokio::test]
async fn a_script_that_names_no_packages_runs_by_a_python_that_fits_or_is_refused() -> Result<()> {
    let bin = tempfile::TempDir::new()?;
    fs::write(bin.path().join("python3.77"), OTHER)?;
    fs::set_permissions(bin.path().join("python3.77"), fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH")?);
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], vec![("PATH", path)]).await?;
    grid.run_with(Part::Runner(1), &["--executor", "process"])?;
    let here = Here::of(&grid)?;
    let script = "import os, sys\nprint(os.environ.get('OTHER'), sys.prefix == sys.base_prefix)\n";
    let block = |python: &str| format!("# /// script\n# requires-python = '{python}'\n# dependencies = []\n# ///\n{script}");
    let project = |python: &str| format!("[project]\nname = 'x'\nrequires-python = '{python}'\n");
    here.write("usual.py", block(">=3.8"))?
        .write("other.py", block(">=3.70,<4"))?
        .write("none.py", block(">=3.99"))?
        .write("usual/s.py", script)?
        .write("usual/pyproject.toml", project(">=3.8,<3.70"))?
        .write("other/s.py", script)?
        .write("other/pyproject.toml", project(">=3.77"))?
        .write("none/s.py", script)?
        .write("none/pyproject.toml", project("==2.7.*"))?
        .write("poetry/s.py", script)?
        .write("poetry/pyproject.toml", "[tool.poetry.dependencies]\npython = '^3.77'\n")?;
    for (script, expected) in [
        ("usual.py", Some("None True\n")),
        ("other.py", Some("1 True\n")),
        ("none.py", None),
        ("usual/s.py", Some("None True\n")),
        ("other/s.py", Some("1 True\n")),
        ("none/s.py", None),
        ("poetry/s.py", Some("1 True\n")),
    ] {
        let came = here.rgrid(&["run", script])?;
        match expected {
            Some(printed) => assert_eq!((came.code, came.out().as_str()), (0, printed), "{script}: {}", came.err()),
            None => {
                ensure!(came.code == 126 && came.out().is_empty(), "{script}: {}{}", came.out(), came.err());
                let err = came.err();
                ensure!(
                    err.contains("(requires-python), and for runtime `python` this worker has 3.") && err.contains("3.77.1"),
                    "{err}"
                );
            }
        }
    }
    let told = here.rgrid(&["run", "--dry-run", "other.py"])?.line()?;
    ensure!(told.contains("Python >=3.70,<4 (other.py)"), "{told}");
    let came = here.rgrid(&["run", "--no-requirements", "none.py"])?;
    assert_eq!((came.code, came.out().as_str()), (0, "None True\n"), "{}", came.err());
    Ok(())
}
