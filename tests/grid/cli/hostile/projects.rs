//! What the files of a project may say.

use std::{fs, os::unix::fs::symlink, process::Command};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, rgrid};

use super::{super::here::Here, KEY, sent};

#[tokio::test]
async fn a_projects_file_counts_once_it_is_trusted_and_no_longer_when_it_changes() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os\nprint(os.environ.get('MODE'))\n")?
        .write("rgrid.toml", "[run.env]\nMODE = \"fast\"\n")?;
    let refused = |what: &str| -> Result<()> {
        let came = here.rgrid(&["run", "s.py"])?;
        let err = came.err();
        ensure!(
            came.code == 2 && err.contains(what) && err.contains("rgrid trust ") && err.contains("--no-defaults"),
            "{} {err}",
            came.code
        );
        Ok(())
    };
    refused("is not trusted yet")?;
    // It says nothing of the grid, so that no other verb minds; and without it, the script runs.
    here.rgrid(&["list"])?.line()?;
    assert_eq!(here.rgrid(&["run", "--no-defaults", "s.py"])?.line()?, "None");
    here.trusted()?;
    assert_eq!(here.rgrid(&["run", "s.py"])?.line()?, "fast");
    let listed = here.rgrid(&["trust", "list", "--json"])?.json()?;
    ensure!(
        listed["trusted"][0]["state"] == "trusted" && listed["trusted"][0]["path"] == here.path().join("rgrid.toml").display().to_string(),
        "{listed}"
    );
    here.write("rgrid.toml", "[run.env]\nMODE = \"other\"\n")?;
    refused("has changed since you trusted it")?;
    ensure!(here.rgrid(&["trust", "list"])?.line()?.contains("changed"), "not said");
    here.trusted()?;
    assert_eq!(here.rgrid(&["run", "s.py"])?.line()?, "other");
    here.rgrid(&["trust", "rm"])?.line()?;
    refused("is not trusted yet")?;
    assert_eq!(here.rgrid(&["trust", "rm"])?.code, 2);
    // On a terminal, it is asked for once.
    let ask = |steps: &str| -> Result<String> {
        let mut command = Command::new("python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/grid/scripts/terminal.py"))
            .arg(steps)
            .arg(rgrid())
            .args(["run", "s.py"]);
        let template = here.command(&["run"]);
        command.current_dir(here.path()).env_clear().env("TERM", "dumb");
        for (name, value) in template.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
    };
    let said = ask(r#"["Trust this file", "n"]"#)?;
    ensure!(
        said.contains("MODE = \"other\"") && said.contains("is not trusted yet") && said.contains("rgrid trust "),
        "{said}"
    );
    let said = ask(r#"["Trust this file", "y"]"#)?;
    ensure!(said.contains("other\r\n"), "{said}");
    assert_eq!(here.rgrid(&["run", "s.py"])?.line()?, "other");
    Ok(())
}

#[test]
fn what_a_trusted_projects_file_names_stays_below_the_project() -> Result<()> {
    let here = Here::without_grid()?;
    fs::write(here.beside("key"), KEY)?;
    symlink(here.beside("key"), here.path().join("link"))?;
    let outside = here.beside("key").display().to_string();
    for said in [
        "key-file = \"../key\"".to_owned(),
        "key-file = \"link\"".to_owned(),
        "[run]\nenv-file = \"../key\"".to_owned(),
        "[run]\nenv-file = \"link\"".to_owned(),
        "[run]\ninclude = [\"s.py\", \"../key\"]".to_owned(),
        "[run]\ninclude = \"link\"".to_owned(),
        format!("[run]\nstdin = \"{outside}\""),
        "[run.input]\n\"../key\" = \"k\"".to_owned(),
        "[run]\nbatch = \"../*\"".to_owned(),
        "[run]\neach-line = \"../key\"".to_owned(),
        "[run]\nrequirements = \"link\"".to_owned(),
    ] {
        here.write("s.py", "print(1)\n")?.write("rgrid.toml", format!("{said}\n"))?;
        here.trusted()?;
        let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
        ensure!(
            came.code == 2 && came.err().contains("is not below the project") && came.err().contains("rgrid.toml, line "),
            "{said}: {} {}",
            came.code,
            came.err()
        );
    }
    here.write("rgrid.toml", "[run]\nenv-file = \"p.env\"\n")?
        .write("p.env", "A=b\nPATH\n")?;
    here.trusted()?;
    let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
    ensure!(
        came.code == 2 && came.err().contains("reads the variable PATH of this machine"),
        "{}",
        came.err()
    );
    Ok(())
}

#[tokio::test]
async fn a_scripts_packages_and_modules_name_no_file_outside_its_project() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let key = here.beside("key.txt");
    fs::write(&key, KEY)?;
    let wheel = here.beside("own-1-py3-none-any.whl");
    fs::write(&wheel, KEY)?;
    let block = |line: &str| format!("# /// script\n# dependencies = [{line}]\n# ///\nprint(1)\n");
    for (script, list) in [
        (block(&format!("'own @ file://{}'", wheel.display())), String::new()),
        ("print(1)\n".to_owned(), format!("-r {}\n", key.display())),
        ("print(1)\n".to_owned(), "-c ../key.txt\nsix\n".to_owned()),
        ("print(1)\n".to_owned(), "-r linked.txt\n".to_owned()),
        ("print(1)\n".to_owned(), "--find-links ..\nsix\n".to_owned()),
        ("print(1)\n".to_owned(), format!("{}\n", wheel.display())),
        ("print(1)\n".to_owned(), "-r .env\n".to_owned()),
    ] {
        here.write("s.py", &script)?.write("requirements.txt", &list)?.write(".env", KEY)?;
        let _ = fs::remove_file(here.path().join("linked.txt"));
        symlink(&key, here.path().join("linked.txt"))?;
        let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
        ensure!(
            came.code == 2 && (came.err().contains("outside the project") || came.err().contains("looks like a secret")),
            "{script}{list}: {} {}",
            came.code,
            came.err()
        );
    }
    // A list that is itself a link out is not read, and neither are linked modules.
    fs::remove_file(here.path().join("requirements.txt"))?;
    symlink(&key, here.path().join("requirements.txt"))?;
    fs::write(here.beside("module.py"), KEY)?;
    symlink(here.beside("module.py"), here.path().join("helper.py"))?;
    fs::create_dir(here.path().join("pkg"))?;
    here.write("pkg/__init__.py", "")?;
    symlink(here.beside("module.py"), here.path().join("pkg/inner.py"))?;
    here.write("s.py", "import helper, pkg\nfrom pkg import inner\nprint(1)\n")?;
    let came = here.rgrid(&["run", "--dry-run", "--json", "s.py"])?;
    let told = came.json()?;
    assert_eq!(sent(&told), ["s.py", "pkg/__init__.py"], "{}", came.err());
    ensure!(came.err().contains("requirements.txt leads out of the project"), "{}", came.err());
    Ok(())
}
