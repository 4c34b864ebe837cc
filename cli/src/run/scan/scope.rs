//! The directories that a scan may look into: the current one, the script's own, and the project around them.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Files that mark a project's directory.
const MARKS: [&str; 4] = [".git", "pyproject.toml", "package.json", "rgrid.toml"];

/// Where files are looked for. All of it is canonical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScanScope {
    /// The current directory.
    pub(crate) cwd: PathBuf,
    /// The project around it, or itself: nothing above it is found.
    pub(crate) top: PathBuf,
    /// The directory of the script, if there is one.
    pub(crate) script_dir: Option<PathBuf>,
    /// The user's home.
    pub(crate) home: Option<PathBuf>,
}

impl ScanScope {
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
            cwd,
            top,
            script_dir,
            home,
        })
    }

    /// Whether a path belongs to the project, or lies beside the script or below it.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.top) || self.script_dir.as_ref().is_some_and(|dir| path.starts_with(dir))
    }

    /// Whether a directory is, or holds, the user's home, or is the root of all.
    fn is_wide(&self, dir: &Path) -> bool {
        dir.parent().is_none() || self.home.as_ref().is_some_and(|home| home.starts_with(dir))
    }

    /// Whether a path belongs to the user's home at large, and to no project in it: only what is named exactly is meant there.
    pub(crate) fn is_private(&self, path: &Path) -> bool {
        let owners = [Some(&self.top), self.script_dir.as_ref()];
        !owners.into_iter().flatten().any(|dir| path.starts_with(dir) && !self.is_wide(dir))
    }

    /// Whether a directory holds the current one, or the script's: such a one is not meant as a whole unless it is listed.
    pub(crate) fn is_around(&self, dir: &Path) -> bool {
        self.cwd.starts_with(dir) || self.script_dir.as_ref().is_some_and(|script| script.starts_with(dir))
    }
}

/// The directory of the project around a directory: the nearest that has a repository, else the outermost with another mark. Never the
/// user's home, nor what it stands in, nor a directory in which others may lay a mark.
fn project(cwd: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let inside = || {
        cwd.ancestors()
            .take_while(|dir| dir.parent().is_some() && home.is_none_or(|home| !home.starts_with(dir)))
            .filter(|dir| is_trusted(dir))
    };
    let repository = inside().find(|dir| dir.join(".git").exists());
    let marked = || inside().filter(|dir| MARKS.iter().any(|mark| dir.join(mark).exists())).last();
    repository.map(Path::to_owned).or_else(|| marked().map(Path::to_owned))
}

/// Whether only this user, or root, can have laid what stands in a directory. In `/tmp` anybody could make a project of everything.
fn is_trusted(dir: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    std::fs::metadata(dir).is_ok_and(|meta| (meta.uid() == me || meta.uid() == 0) && meta.mode() & 0o002 == 0)
}

/// Whether a file lies, by where its links lead, in the project around one of these directories: nothing that a project, or a script of
/// somebody else's, says of its files means any other. Of the user's home, or what it stands in, only what lies beside is meant, and
/// nothing hidden.
pub(crate) fn is_of_project(file: &Path, dirs: &[&Path]) -> bool {
    let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
    file.canonicalize().is_ok_and(|file| is_of(&file, dirs, home.as_deref()))
}

/// The same of a canonical path.
fn is_of(file: &Path, dirs: &[&Path], home: Option<&Path>) -> bool {
    let is_of = |dir: &&Path| {
        let Ok(dir) = dir.canonicalize() else { return false };
        let top = project(&dir, home).unwrap_or(dir);
        if top.parent().is_none() || home.is_some_and(|home| home.starts_with(&top)) {
            let is_hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            return file.parent() == Some(&top) && !is_hidden;
        }
        file.starts_with(&top)
    };
    !super::skipped::is_repository_metadata(file) && dirs.iter().any(is_of)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_project_is_the_repository_around_and_never_the_home() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().canonicalize()?;
        let deep = root.join("home/work/app/src");
        fs::create_dir_all(&deep)?;
        let home = root.join("home");
        let top = |cwd: &Path| ScanScope::of(cwd, None, Some(&home)).map(|scope| scope.top);
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
        let at_home = ScanScope::of(&home, None, Some(&home))?;
        assert!(at_home.is_private(&home.join("diary")) && !ScanScope::of(&deep, None, Some(&home))?.is_private(&deep.join("x")));
        fs::set_permissions(root.join("home/work"), fs::Permissions::from_mode(0o777))?;
        fs::write(root.join("home/work/package.json"), "{}")?;
        assert_eq!(top(&deep)?, deep, "anybody could have laid it");
        Ok(())
    }

    #[test]
    fn what_a_project_names_is_the_projects_own() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().canonicalize()?;
        let home = root.join("home");
        let app = home.join("app");
        fs::create_dir_all(app.join(".git"))?;
        fs::create_dir_all(app.join("src"))?;
        fs::create_dir_all(home.join(".ssh"))?;
        for (dir, file, expected) in [
            (app.join("src"), app.join("base.txt"), true),
            (app.join("src"), app.join(".git/config"), false),
            (app.join("src"), home.join("notes.txt"), false),
            (app.join("src"), home.join("application"), false),
            (home.clone(), home.join("base.txt"), true),
            (home.clone(), home.join(".netrc"), false),
            (home.clone(), home.join(".ssh/key"), false),
            (root.clone(), home.join("notes.txt"), false),
        ] {
            assert_eq!(
                is_of(&file, &[&dir], Some(&home)),
                expected,
                "{} from {}",
                file.display(),
                dir.display()
            );
        }
        let outside = root.join("key");
        fs::write(&outside, "")?;
        std::os::unix::fs::symlink(&outside, app.join("requirements.txt"))?;
        assert!(
            !is_of_project(&app.join("requirements.txt"), &[&app]),
            "where its links lead counts"
        );
        Ok(())
    }
}
