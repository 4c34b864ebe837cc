//! Every change of an input comes back, however it was made; on both executors. These tests need a Docker daemon and the image
//! `rgrid/python:3`, and fail without.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::as_here::tree;
use crate::cli::here::Here;

/// Changes each pair of files that it is given, in the way that stands in their names, and keeps what a careless look would look at.
const CHANGES: &str = "\
import mmap, os, shutil, sys
def write(path, text):
    with open(path, 'r+') as f:
        f.write(text)
def mapped(a, b):
    with open(a, 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
        m[:] = b'2'
def linked(a, b):
    os.unlink(a)
    os.link(b, a)
def swapped(a, b):
    os.rename(a, a + '.t')
    os.rename(b, a)
    os.rename(a + '.t', b)
def put(a, b):
    fd = os.open(a, os.O_WRONLY)
    os.pwrite(fd, b'2', 0)
    os.close(fd)
def beside(a, b):
    with open(a + '.new', 'w') as f:
        f.write('2')
    shutil.copystat(a, a + '.new')
    os.replace(a + '.new', a)
def rights(a, b):
    os.chmod(a, 0o700)
    os.chmod(a, 0o644)
ways = {
    'moved': lambda a, b: os.rename(b, a),
    'copied': lambda a, b: shutil.copy2(b, a),
    'linked': linked, 'mapped': mapped, 'swapped': swapped, 'put': put, 'beside': beside, 'rights': rights,
    'written': lambda a, b: write(a, '2'),
    'same': lambda a, b: write(a, '1'),
    'mode': lambda a, b: os.chmod(a, 0o600),
    'touched': lambda a, b: os.utime(a),
}
for a, b in zip(sys.argv[1::2], sys.argv[2::2]):
    before = os.stat(a)
    ways[os.path.basename(a)[:-2]](a, b)
    os.utime(a, ns=(before.st_atime_ns, before.st_mtime_ns))
";

const WAYS: [&str; 12] = [
    "moved", "copied", "linked", "mapped", "swapped", "put", "beside", "rights", "written", "same", "mode", "touched",
];
/// What is no change at its end.
const UNCHANGED: [&str; 3] = ["rights", "same", "touched"];

fn lay(dir: &Path) -> Result<()> {
    fs::write(dir.join("change.py"), CHANGES)?;
    for way in WAYS {
        fs::write(dir.join(format!("{way}-a")), "1")?;
        fs::write(dir.join(format!("{way}-b")), "2")?;
    }
    Ok(())
}

/// A grid whose worker runs everything by this executor.
pub(super) async fn grid_of(executor: &str) -> Result<Grid> {
    let mut grid = Grid::start_only(&[Part::Api, Part::Projector, Part::Watcher]).await?;
    grid.run_with(Part::Runner(1), &["--executor", executor])?;
    grid.worker_is("worker-1", "live").await?;
    Ok(grid)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_input_comes_back_from_either_executor() -> Result<()> {
    let names: Vec<String> = WAYS.iter().flat_map(|way| [format!("{way}-a"), format!("{way}-b")]).collect();
    let words: Vec<&str> = ["change.py"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let local = tempfile::tempdir()?;
    lay(local.path())?;
    let ran = Command::new("python3")
        .args(&words)
        .current_dir(local.path())
        .stdin(Stdio::null())
        .output()?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for executor in ["process", "docker"] {
        let grid = grid_of(executor).await?;
        let here = Here::of(&grid)?;
        lay(&here.path())?;
        let came = here.rgrid(&[&["run"], &words[..]].concat())?;
        ensure!(came.code == 0, "{executor}: {}", came.err());
        assert_eq!(tree(&here.path())?, tree(local.path())?, "{executor}");
        let mode = fs::metadata(here.path().join("mode-a"))?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{executor}");
        let listed = here.rgrid(&["download", "last", "--list", "--json"])?.json()?;
        let listed = listed["artifacts"].as_array().context("a list")?;
        let is_listed = |name: &str| listed.iter().any(|file| file["path"] == name);
        for way in WAYS {
            let changed = !UNCHANGED.contains(&way);
            ensure!(is_listed(&format!("{way}-a")) == changed, "{executor}: {way}: {listed:?}");
        }
    }
    Ok(())
}
