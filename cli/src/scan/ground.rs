//! The directories that a scan may look into: the current one, the script's own, and the project around them.

use std::path::{Component, Path, PathBuf};

/// Files that mark a project's directory.
const MARKS: [&str; 4] = [".git", "pyproject.toml", "package.json", "rgrid.toml"];

/// Where files are looked for. All of it is canonical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ground {
    /// The current directory.
    pub(crate) cwd: PathBuf,
    /// The project around it, or itself: nothing above it is found.
    pub(crate) top: PathBuf,
    /// The directory of the script, if there is one.
    pub(crate) script_dir: Option<PathBuf>,
    /// Whether the current directory is the user's home or the root of all: whole directories of it are never meant.
    pub(crate) is_home: bool,
}

impl Ground {
    /// The ground of a run from a directory.
    ///
    /// # Errors
    /// If the directory is not there.
    pub(crate) fn of(cwd: &Path, script: Option<&Path>, home: Option<&Path>) -> std::io::Result<Self> {
        let cwd = cwd.canonicalize()?;
        let home = home.and_then(|home| home.canonicalize().ok());
        let top = project(&cwd, home.as_deref()).unwrap_or_else(|| cwd.clone());
        let script_dir = script.and_then(|script| cwd.join(script).canonicalize().ok()?.parent().map(Path::to_owned));
        Ok(Self {
            is_home: Some(&cwd) == home.as_ref() || cwd.parent().is_none(),
            cwd,
            top,
            script_dir,
        })
    }

    /// Whether a path belongs to the project, or lies beside the script or below it.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.top) || self.script_dir.as_ref().is_some_and(|dir| path.starts_with(dir))
    }

    /// Whether a directory holds the current one, or the script's: such a one is not meant as a whole unless it is listed.
    pub(crate) fn is_around(&self, dir: &Path) -> bool {
        self.cwd.starts_with(dir) || self.script_dir.as_ref().is_some_and(|script| script.starts_with(dir))
    }
}

/// The directory of the project around a directory: the outermost that has a repository, else the nearest with another mark. Never the
/// user's home, nor what it stands in.
fn project(cwd: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let inside = || {
        cwd.ancestors()
            .take_while(|dir| dir.parent().is_some() && home.is_none_or(|home| !home.starts_with(dir)))
    };
    let repository = inside().find(|dir| dir.join(".git").exists());
    let marked = || inside().filter(|dir| MARKS.iter().any(|mark| dir.join(mark).exists())).last();
    repository.map(Path::to_owned).or_else(|| marked().map(Path::to_owned))
}

/// A path with `.` and `..` resolved by its words.
pub(crate) fn normalized(path: &Path) -> Option<PathBuf> {
    let mut made = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !made.pop() {
                    return None;
                }
            }
            part => made.push(part),
        }
    }
    Some(made)
}

/// The path from one directory to something, with `..` where it climbs.
pub(crate) fn relative(from: &Path, to: &Path) -> Option<String> {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let mut parts = vec![".."; from.components().count() - shared];
    for part in to.components().skip(shared) {
        parts.push(part.as_os_str().to_str()?);
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_project_is_the_repository_around_and_never_the_home() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().canonicalize()?;
        let deep = root.join("home/work/app/src");
        fs::create_dir_all(&deep)?;
        let home = root.join("home");
        let top = |cwd: &Path| Ground::of(cwd, None, Some(&home)).map(|ground| ground.top);
        assert_eq!(top(&deep)?, deep);
        fs::write(root.join("home/work/app/pyproject.toml"), "")?;
        assert_eq!(top(&deep)?, root.join("home/work/app"));
        fs::create_dir(root.join("home/work/.git"))?;
        assert_eq!(top(&deep)?, root.join("home/work"));
        // A home that is a repository is no project.
        fs::create_dir(root.join("home/.git"))?;
        fs::remove_dir(root.join("home/work/.git"))?;
        fs::remove_file(root.join("home/work/app/pyproject.toml"))?;
        assert_eq!(top(&deep)?, deep);
        assert!(Ground::of(&home, None, Some(&home))?.is_home);
        Ok(())
    }

    #[test]
    fn paths_are_told_from_one_another() {
        assert_eq!(normalized(Path::new("/a/./b/../c")), Some(PathBuf::from("/a/c")));
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/c/d")).as_deref(), Some("../c/d"));
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/b")).as_deref(), Some(""));
    }
}
