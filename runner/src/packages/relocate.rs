//! A virtual environment's own interpreter: that of the worker, or of the image, which the archive does not bring.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::remove::remove;

/// In a virtual environment: which interpreter it was made with.
pub(super) const MADE_WITH: &str = ".rgrid.json";

/// What a virtual environment was made with.
#[derive(Debug, Deserialize)]
struct MadeWith {
    executable: PathBuf,
    python: String,
}

/// Gives a virtual environment its interpreter: this one, or the one that it was made with.
pub(super) fn relocate(env: &Path, executable: Option<&Path>) -> io::Result<()> {
    let made: MadeWith = serde_json::from_slice(&fs::read(own_file(&env.join(MADE_WITH))?)?)?;
    let executable = executable.unwrap_or(&made.executable);
    let (bin, home) = (env.join("bin"), executable.parent().unwrap_or(Path::new("/")));
    match fs::symlink_metadata(&bin) {
        Ok(meta) if meta.is_dir() => {}
        // Whatever it is, nothing is written behind it.
        Ok(_) => return Err(io::Error::other("the environment's `bin` is not a directory")),
        // An archive without scripts has none.
        Err(_) => fs::create_dir(&bin)?,
    }
    let minor: Vec<&str> = made.python.splitn(3, '.').take(2).collect();
    let links = [("python", executable), ("python3", Path::new("python"))];
    let versioned = format!("python{}", minor.join("."));
    for (name, target) in links.into_iter().chain([(versioned.as_str(), Path::new("python"))]) {
        remove(&bin.join(name))?;
        symlink(target, bin.join(name))?;
    }
    let config = format!(
        "home = {}\ninclude-system-site-packages = false\nversion = {}\n",
        home.display(),
        made.python
    );
    let path = env.join("pyvenv.cfg");
    remove(&path)?;
    fs::write(path, config)
}

/// A path at which a file stands, and no link: what was made in a container may mean harm.
pub(super) fn own_file(path: &Path) -> io::Result<&Path> {
    if fs::symlink_metadata(path)?.is_file() {
        Ok(path)
    } else {
        Err(io::Error::other(format!("{} is not a file", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_environment_gets_the_interpreter_of_this_worker() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join(MADE_WITH), r#"{"executable":"/usr/bin/python3","python":"3.11.2"}"#)?;
        for (given, expected) in [
            (None, "/usr/bin/python3"),
            (Some(Path::new("/opt/py/bin/python3.11")), "/opt/py/bin/python3.11"),
        ] {
            relocate(dir.path(), given)?;
            assert_eq!(fs::read_link(dir.path().join("bin/python"))?, Path::new(expected));
            assert_eq!(fs::read_link(dir.path().join("bin/python3.11"))?, Path::new("python"));
            let home = format!("home = {}\n", Path::new(expected).parent().expect("a parent").display());
            assert!(fs::read_to_string(dir.path().join("pyvenv.cfg"))?.starts_with(&home));
        }
        Ok(())
    }
}
