//! Small projects as people have them on their laptops: each runs through the grid as it runs here, the first time, without a flag.
//!
//! A project of `tests/projects` is a directory `files`, in which `dot.x` stands for `.x`; `here`, the command that runs it here; and
//! `there`, the one that runs it through the grid.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::Grid;

use crate::cli::here::{Came, Here};

/// Files and links by their paths: content, or what a link says, and mode.
type Tree = BTreeMap<PathBuf, (Vec<u8>, u32)>;

/// Writes a project's files, names with `dot.` as hidden ones.
fn lay_out(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name that is not text")?;
        let name = name.strip_prefix("dot").filter(|rest| rest.starts_with('.')).unwrap_or(&name);
        let (path, at) = (entry.path(), to.join(name));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&path)?, &at)?;
        } else if kind.is_dir() {
            lay_out(&path, &at)?;
        } else {
            fs::copy(&path, &at)?;
        }
    }
    Ok(())
}

/// Every file and link below a directory, by its path.
fn tree(root: &Path) -> Result<Tree> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if path.file_name().is_some_and(|name| name == "__pycache__") {
                continue;
            }
            let key = path.strip_prefix(root)?.to_owned();
            if meta.is_symlink() {
                found.insert(key, (fs::read_link(&path)?.into_os_string().into_encoded_bytes(), 0));
            } else if meta.is_dir() {
                dirs.push(path);
            } else {
                found.insert(key, (fs::read(&path)?, meta.permissions().mode() & 0o777));
            }
        }
    }
    Ok(found)
}

/// What a command line comes to in a directory, with a program `rgrid` first in its path.
fn shell(access: &Here, tools: &Path, line: &str, dir: &Path) -> Result<Came> {
    let mut command = Command::new("bash");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    command.env_clear().envs(
        access
            .command(&[""])
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
    );
    command.env("PATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command.args(["-c", line]).current_dir(dir).stdin(Stdio::null()).output()?.into())
}

/// Runs these commands one after the other in a copy of a project, and tells what the last came to, and what is there then.
fn after(access: &Here, tools: &Path, project: &Path, lines: &[&str]) -> Result<(Came, Tree)> {
    let dir = tempfile::tempdir()?;
    let at = dir.path().join("w");
    lay_out(&project.join("files"), &at)?;
    let mut last = None;
    for line in lines {
        last = Some(shell(access, tools, line, &at)?);
    }
    Ok((last.context("a command")?, tree(&at)?))
}

#[tokio::test]
async fn small_projects_run_as_they_are() -> Result<()> {
    let grid = Grid::start().await?;
    let access = Here::of(&grid)?;
    let tools = tempfile::tempdir()?;
    symlink(grid_tests::grid::rgrid(), tools.path().join("rgrid"))?;
    let projects = Path::new(env!("CARGO_MANIFEST_DIR")).join("projects");
    let mut differ = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&projects)? {
        let project = entry?.path();
        let line = |name: &str| -> Result<String> { Ok(fs::read_to_string(project.join(name))?.trim().to_owned()) };
        let (here, there) = (line("here")?, line("there")?);
        count += 1;
        // Once; twice; and once here before.
        for lines in [&[&there][..], &[&there, &there], &[&here, &there]] {
            let local: Vec<&str> = lines.iter().map(|_| here.as_str()).collect();
            let lines: Vec<&str> = lines.iter().map(|line| line.as_str()).collect();
            let (expected, expected_tree) = after(&access, tools.path(), &project, &local)?;
            let (came, came_tree) = after(&access, tools.path(), &project, &lines)?;
            // What was replaced and was not sent is kept, which is more than there is here.
            let came_tree: Tree = came_tree.into_iter().filter(|(path, _)| !path.starts_with(".rgrid")).collect();
            if (came.code, &came.out, &came_tree) != (expected.code, &expected.out, &expected_tree) {
                let changed: Vec<_> = expected_tree
                    .keys()
                    .chain(came_tree.keys())
                    .filter(|path| expected_tree.get(*path) != came_tree.get(*path))
                    .collect();
                differ.push(format!(
                    "{lines:?} in {}: {} here, {}: {}{changed:?}",
                    project.display(),
                    expected.code,
                    came.code,
                    came.err()
                ));
                break;
            }
        }
    }
    ensure!(count >= 50, "only {count} projects are there");
    ensure!(differ.is_empty(), "{} of {count} differ:\n{}", differ.len(), differ.join("\n"));
    Ok(())
}
