//! Outputs outside of the current directory, and among the files of rgrid.

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;

use crate::cli::here::{Came, Here};

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
