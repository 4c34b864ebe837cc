//! The packages that jobs need: installed once, stored, fetched, evicted; and what the user hears where they cannot be.
//!
//! No index is asked: the tests make their own wheels and archives.

mod cache;
mod declared;
mod docker;
mod failures;
mod index;
mod node;
mod pinned;
mod python;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};

use crate::cli::here::{Came, Here};

/// What writes a wheel: a module of one name with a function `said`, a program of that name with `-cli`, and what it needs.
/// Python imports it at each of its starts where it begins by saying so.
const WHEEL: &str = r"
import sys, zipfile
path, name, version, needs = sys.argv[1:5]
body = sys.stdin.read()
info = f'{name}-{version}.dist-info'
files = {
    f'{name}/__init__.py': body,
    f'{name}/__main__.py': f'import {name}\nprint({name}.said())\n',
    f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n' + ''.join(f'Requires-Dist: {need}\n' for need in needs.split()),
    f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    f'{info}/entry_points.txt': f'[console_scripts]\n{name}-cli = {name}.__main__:main\n',
}
files[f'{name}/__main__.py'] = f'import {name}\ndef main(): print({name}.said())\nif __name__ == \'__main__\': main()\n'
if body.startswith('# at each start'):
    files[f'{name}.pth'] = f'import {name}\n'
files[f'{info}/RECORD'] = ''.join(f'{file},,\n' for file in [*files, f'{info}/RECORD'])
with zipfile.ZipFile(path, 'w') as archive:
    for file, text in files.items():
        archive.writestr(zipfile.ZipInfo(file), text)
";

/// Writes a wheel into a directory, and returns its name.
fn wheel(dir: &Path, name: &str, version: &str, body: &str, needs: &str) -> Result<String> {
    std::fs::create_dir_all(dir)?;
    let file = format!("{name}-{version}-py3-none-any.whl");
    let mut made = Command::new("python3")
        .args(["-c", WHEEL])
        .arg(dir.join(&file))
        .args([name, version, needs])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut body_in = made.stdin.take().context("it has a standard input")?;
    body_in.write_all(body.as_bytes())?;
    drop(body_in);
    ensure!(made.wait()?.success(), "{file} could not be written");
    Ok(file)
}

/// A wheel whose `said()` is this word.
fn saying(here: &Here, name: &str, word: &str) -> Result<String> {
    wheel(
        &here.path().join("wheels"),
        name,
        "1.0",
        &format!("def said(): return '{word}'\n"),
        "",
    )
}

/// Runs a script for the first time that needs one package, which says `hello`: it is installed, that is told, and this is printed.
fn installed_first(here: &Here, script: &str, printed: &str) -> Result<Came> {
    let file = saying(here, "hail", "hello")?;
    here.write("s.py", script)?
        .write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    let first = here.rgrid(&["run", "s.py"])?;
    assert_eq!((first.code, first.out().as_str()), (0, printed), "{}", first.err());
    ensure!(
        first.err().starts_with("rgrid: installing 1 package (requirements.txt)\n"),
        "{}",
        first.err()
    );
    Ok(first)
}

/// Waits until a runner has logged something so many times.
async fn logged(grid: &Grid, part: Part, words: &str, times: usize) -> Result<()> {
    grid.eventually(&format!("{part:?} says `{words}`"), async || {
        (grid.log(part).matches(words).count() >= times).then_some(())
    })
    .await
}

/// What a runner says when it has installed something.
const INSTALLED: &str = "installed 1 package";
/// What it says when others can fetch that.
const STORED: &str = "are in the store";
