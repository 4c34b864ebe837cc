//! Images of Debian's packages: the same of the same packages, and a clear word where they cannot be.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result};

use super::docker;
use crate::cli::here::Here;

/// Removed in the end.
struct Tag(String);

impl Drop for Tag {
    fn drop(&mut self) {
        let _gone = docker(&["image", "rm", "--force", &self.0]);
    }
}

#[test]
fn a_runtime_is_made_of_debian_s_packages_and_twice_the_same() -> Result<()> {
    let here = Here::without_grid()?;
    let tag = Tag(format!("rgrid/test-build:{}", uuid::Uuid::now_v7().simple()));
    let built = here.rgrid(&["image", "build", "bash", "--tag", &tag.0, "--json"])?.json()?;
    let version = built["version"].as_str().context("a version")?.to_owned();
    let runs = docker(&["run", "--rm", &tag.0, "bash", "-c", "echo $LANG; bash --version"])?;
    assert!(runs.starts_with("C.UTF-8") && runs.contains(&version), "{runs}");
    let label = docker(&["image", "inspect", "--format", "{{index .Config.Labels \"rgrid.runtime\"}}", &tag.0])?;
    assert_eq!(label, format!("bash:{version}"));

    docker(&["image", "rm", "--force", &tag.0])?;
    let again = here.rgrid(&["image", "build", "bash", "--tag", &tag.0, "--json"])?.json()?;
    assert_eq!(again["id"], built["id"], "{again}");
    Ok(())
}

#[test]
fn what_cannot_be_made_is_said_before_anything_is() -> Result<()> {
    let here = Here::without_grid()?;
    for (arguments, words) in [
        (vec!["python:2.6"], "and not 2.6: ask for `python:3."),
        (
            vec!["julia"],
            "no image of `julia` can be made of Debian's packages; those of python",
        ),
        (vec!["bash", "--package", "Not A Package"], "is not the name of a package"),
        (vec!["bash:"], "is not a runtime"),
    ] {
        let came = here.rgrid(&[vec!["image", "build"], arguments].concat())?;
        assert!(came.code == 2 && came.err().contains(words), "{}", came.err());
    }
    // A machine that has all but mmdebstrap, and one whose mmdebstrap fails.
    let bin = here.path().join("bin");
    fs::create_dir(&bin)?;
    let link = |name: &str| -> Result<()> {
        let file = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
            .with_context(|| name.to_owned())?;
        Ok(std::os::unix::fs::symlink(file, bin.join(name))?)
    };
    link("apt-cache")?;
    let build = |what: &str| -> Result<String> {
        let mut command = here.command(&["image", "build", "bash", "--tag", "rgrid/test-build:none"]);
        let output = command.env("PATH", &bin).output()?;
        assert!(!output.status.success(), "{what}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = build("without mmdebstrap")?;
    assert!(
        said.contains("mmdebstrap is not installed") && said.contains("apt-get install mmdebstrap"),
        "{said}"
    );
    here.write("bin/mmdebstrap", "#!/bin/sh\necho 'E: no luck today' >&2\nexit 3\n")?;
    fs::set_permissions(bin.join("mmdebstrap"), fs::Permissions::from_mode(0o755))?;
    let said = build("with a mmdebstrap that fails")?;
    assert!(
        said.contains("mmdebstrap could not make the image") && said.contains("no luck today"),
        "{said}"
    );
    Ok(())
}
