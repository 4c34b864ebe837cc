//! What lies here in odd ways lies there so: behind links, from elsewhere, with modes; and what a script does to it comes back.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;

use crate::cli::here::Here;

/// Prints each file below its arguments, with what it holds.
const SHOW: &str = "\
import os, sys
for root in sys.argv[1:]:
    for top, dirs, files in sorted(os.walk(root, followlinks=True)):
        for f in sorted(files):
            p = os.path.join(top, f)
            print(os.path.relpath(p, root), oct(os.stat(p).st_mode & 0o777), open(p).read())
";

#[tokio::test]
async fn what_links_lead_to_is_there_each_by_its_own_way() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("show.py", SHOW)?
        .write("data/x", "of the data")?
        .write("x", "of the directory")?
        .write("../far/x", "of far away")?
        .write("../far/deep/y", "deep")?;
    symlink("../x", here.path().join("../far/deep/up"))?;
    symlink("../../far", here.path().join("data/one"))?;
    symlink("../../far", here.path().join("data/two"))?;
    let local = std::process::Command::new("python3")
        .args(["show.py", "data"])
        .current_dir(here.path())
        .output()?;
    let came = here.rgrid(&["run", "show.py", "data"])?;
    ensure!(came.code == 0, "{}", came.err());
    assert_eq!(came.out(), String::from_utf8(local.stdout)?);
    Ok(())
}

#[tokio::test]
async fn a_script_from_elsewhere_and_its_modules_stand_beside_each_other_and_in_nobodys_way() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("../tools/t.py", "import sys, hh\nprint(hh.NAME, open(sys.argv[1]).read())\n")?
        .write("../tools/hh.py", "NAME = 'the module'\n")?
        .write("hh.py", "an argument")?;
    let came = here.rgrid(&["run", "../tools/t.py", "hh.py"])?;
    ensure!(came.out() == "the module an argument\n", "{}{}", came.out(), came.err());
    let came = here.rgrid(&["run", "--workdir", "../tools/t.py", "hh.py"])?;
    ensure!(came.out() == "the module an argument\n", "{}{}", came.out(), came.err());
    // Where two are meant for one path, none is lost in silence.
    let came = here.rgrid(&["run", "--input", "../tools/hh.py=x.py", "--input", "hh.py=x.py", "../tools/t.py"])?;
    ensure!(
        came.code == 2 && came.err().contains("have the same path `x.py`"),
        "{}{}",
        came.out(),
        came.err()
    );
    let came = here.rgrid(&["run", "--workdir", "--exclude", "hh.py", "--no-imports", "--program", "ls"])?;
    ensure!(came.code == 0 && !came.out().contains("hh.py"), "{}{}", came.out(), came.err());
    Ok(())
}

#[tokio::test]
async fn the_directory_above_is_one_as_any_other_and_a_slash_is_a_word() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("show.py", SHOW)?.write("../beside", "b")?;
    let came = here.rgrid(&["run", "show.py", ".."])?;
    ensure!(
        came.code == 0 && came.out().starts_with("beside 0o"),
        "{}{}",
        came.out(),
        came.err()
    );
    here.write("words.py", "import sys\nprint(sys.argv[1:])\n")?;
    let came = here.rgrid(&["run", "words.py", "/", "--sep=/"])?;
    ensure!(came.out() == "['/', '--sep=/']\n", "{}{}", came.out(), came.err());
    Ok(())
}

#[tokio::test]
async fn modes_go_along_and_a_changed_one_comes_back() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("show.py", SHOW)?.write("d/key", "private")?.write("d/tool", "tool")?;
    let mode = |path: &str| -> Result<u32> { Ok(fs::metadata(here.path().join(path))?.permissions().mode() & 0o777) };
    for (path, mode) in [("d/key", 0o600), ("d/tool", 0o750)] {
        fs::set_permissions(here.path().join(path), fs::Permissions::from_mode(mode))?;
    }
    let came = here.rgrid(&["run", "show.py", "d"])?;
    ensure!(came.out() == "key 0o600 private\ntool 0o750 tool\n", "{}{}", came.out(), came.err());
    here.write("change.sh", "chmod 640 d/key; chmod u=rw,go= d/tool")?;
    let came = here.rgrid(&["run", "change.sh", "d"])?;
    ensure!(came.code == 0, "{}", came.err());
    assert_eq!((mode("d/key")?, mode("d/tool")?), (0o640, 0o600));
    Ok(())
}

#[tokio::test]
async fn a_link_that_a_script_retargets_comes_back_and_one_that_it_leaves_alone_does_not() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("d/v1", "1")?
        .write("d/v2", "2")?
        .write("d/deep/x", "")?
        .write("release.sh", "ln -sfn v2 d/current; cp v1 d/v3 2>/dev/null; exit 0")?;
    symlink("v1", here.path().join("d/current"))?;
    symlink("deep", here.path().join("d/way"))?;
    let came = here.rgrid(&["run", "release.sh", "d"])?;
    ensure!(came.code == 0, "{}", came.err());
    assert_eq!(fs::read_link(here.path().join("d/current"))?, Path::new("v2"));
    let listed = here.rgrid(&["download", "last", "--list", "--json"])?.json()?;
    assert_eq!(listed["links"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["artifacts"].as_array().map(Vec::len), Some(0), "{listed}");
    // A link alone is an output too.
    let shown = here.rgrid(&["download", "last", "--list"])?;
    ensure!(shown.out().contains("d/current -> v2"), "{}", shown.out());
    let came = here.rgrid(&["download", "last", "-o", "to"])?;
    assert_eq!(came.line()?, "to/d/current");
    let came = here.rgrid(&["download", "last", "-o", "to"])?;
    ensure!(came.line()?.contains("already here"), "{}", came.out());
    Ok(())
}

#[tokio::test]
async fn a_link_to_what_gitignore_names_brings_it_along() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(".gitignore", "*.big\n")?
        .write("a.big", "big")?
        .write("cat.sh", "cat model; ls")?;
    symlink("a.big", here.path().join("model"))?;
    let came = here.rgrid(&["run", "--workdir", "cat.sh"])?;
    ensure!(came.out() == "bigcat.sh\nmodel\n", "{}{}", came.out(), came.err());
    Ok(())
}

#[tokio::test]
async fn few_files_of_long_names_go_along_too() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let deep = vec!["d".repeat(200); 9].join("/");
    for n in 0..290 {
        here.write(&format!("{deep}/{n}"), "x")?;
    }
    here.write("count.sh", "find d* -type f | wc -l")?;
    let came = here.rgrid(&["run", "count.sh", &"d".repeat(200)])?;
    ensure!(came.out() == "290\n", "{}{}", came.out(), came.err());
    Ok(())
}
