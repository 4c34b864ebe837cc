//! Node's packages.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::{INSTALLED, STORED, index::Index, logged};
use crate::cli::here::Here;

/// A package as npm packs it: a module, and a program.
fn archive(here: &Here) -> Result<()> {
    here.write(
        "made/package/package.json",
        r#"{"name": "hail", "version": "1.0.0", "main": "main.js", "bin": {"hail-cli": "cli.js"}}"#,
    )?
    .write("made/package/main.js", "exports.said = () => 'hello';\n")?
    .write(
        "made/package/cli.js",
        "#!/usr/bin/env node\nconsole.log(require('./main.js').said());\n",
    )?;
    let tar = Command::new("tar")
        .args(["-czf", "../hail.tgz", "package"])
        .current_dir(here.path().join("made"))
        .status()?;
    ensure!(tar.success());
    fs::remove_dir_all(here.path().join("made"))?;
    Ok(())
}

#[tokio::test]
async fn a_package_json_is_installed_once_and_nothing_of_it_is_an_output() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    archive(&here)?;
    here.write(
        "package.json",
        r#"{"type": "module", "scripts": {"prepare": "exit 1"}, "dependencies": {"hail": "file:hail.tgz"}}"#,
    )?
    .write(
        "app/s.js",
        "import { said } from 'hail';\nimport { execFileSync } from 'node:child_process';\nimport fs from 'node:fs';\n\
         console.log(said(), execFileSync('hail-cli').toString().trim());\nfs.writeFileSync('out.txt', said());\n",
    )?;
    let before = here.files()?.len();
    let first = here.rgrid(&["run", "app/s.js"])?;
    assert_eq!((first.code, first.out().as_str()), (0, "hello hello\n"), "{}", first.err());
    ensure!(
        first.err().starts_with("rgrid: installing 1 package (package.json)\n"),
        "{}",
        first.err()
    );
    assert_eq!(here.files()?.len(), before + 1, "out.txt alone: {:?}", here.files()?.keys());
    let second = here.rgrid(&["run", "app/s.js"])?;
    assert_eq!((second.code, second.out(), second.err().as_str()), (0, first.out(), ""));
    logged(&grid, Part::Runner(1), STORED, 1).await?;
    grid.kill(Part::Runner(1))?;
    grid.run(Part::Runner(2))?;
    let elsewhere = here.rgrid(&["run", "app/s.js"])?;
    assert_eq!((elsewhere.code, elsewhere.out()), (0, first.out()), "{}", elsewhere.err());
    ensure!(!grid.log(Part::Runner(2)).contains(INSTALLED));

    // A lock file counts, and one that does not fit is npm's to say.
    here.write(
        "package-lock.json",
        r#"{"name": "x", "lockfileVersion": 3, "requires": true, "packages": {"": {}}}"#,
    )?;
    let came = here.rgrid(&["run", "app/s.js"])?;
    ensure!(
        came.code == 126 && came.err().contains("npm ended with exit code 1"),
        "{}",
        came.err()
    );
    ensure!(came.err().contains("npm ci"), "npm's own words: {}", came.err());
    Ok(())
}

/// A registry with two packages whose `said()` is this word.
fn registry(word: &str) -> Result<(tempfile::TempDir, Index, String)> {
    let dir = tempfile::TempDir::new()?;
    let (index, url) = Index::of(dir.path())?;
    let url = url.trim_end_matches("simple").to_owned();
    for name in ["hail", "@corp/hail"] {
        let made = dir.path().join(format!("{name}-made"));
        let package = made.join("package");
        fs::create_dir_all(&package)?;
        fs::write(
            package.join("package.json"),
            format!(r#"{{"name": "{name}", "version": "1.0.0", "main": "main.js"}}"#),
        )?;
        fs::write(package.join("main.js"), format!("exports.said = () => '{word}';\n"))?;
        let file = format!("{}.tgz", name.trim_start_matches('@').replace('/', "-"));
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(dir.path().join(&file)).arg("-C").arg(&made).arg("package");
        ensure!(tar.status()?.success());
        let about = serde_json::json!({
            "name": name, "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": {"name": name, "version": "1.0.0", "main": "main.js", "dist": {"tarball": format!("{url}{file}")}}},
        });
        fs::write(dir.path().join(name), about.to_string())?;
    }
    Ok((dir, index, url))
}

#[tokio::test]
async fn a_projects_registry_counts_before_the_workers() -> Result<()> {
    let (_public_dir, _public, public) = registry("public")?;
    let (_own_dir, _own, own) = registry("own")?;
    let env = vec![("NPM_CONFIG_REGISTRY", public)];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    grid.run(Part::Runner(1))?;
    let here = Here::of(&grid)?;
    here.write("package.json", r#"{"dependencies": {"hail": "1", "@corp/hail": "1"}}"#)?
        .write("s.js", "console.log(require('hail').said(), require('@corp/hail').said());\n")?;
    for (config, expected) in [
        (String::new(), "public public\n"),
        (format!("@corp:registry={own}\n//127.0.0.1/:_authToken=secret\n"), "public own\n"),
        (format!("registry = {own}\nsave-exact=true\n"), "own own\n"),
    ] {
        let came = here.write(".npmrc", &config)?.rgrid(&["run", "s.js"])?;
        assert_eq!((came.code, came.out().as_str()), (0, expected), "{config}: {}", came.err());
        let is_said = came.err().contains(".npmrc, line 2 holds a credential, which is not sent");
        ensure!(is_said == config.contains("secret"), "{}", came.err());
    }
    let came = here.write(".npmrc", "bogus=1\n")?.rgrid(&["run", "s.js"])?;
    ensure!(
        came.code == 2 && came.err().contains(".npmrc, line 1 sets `bogus`"),
        "{}",
        came.err()
    );
    Ok(())
}
