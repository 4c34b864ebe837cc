//! The inputs of a plan while it is built: paths are relative to the current directory, and may lead above it.

use std::path::{Path, PathBuf};

use bus::spec::{RelPath, tree::Link};

use super::input::{Input, parsed};

/// An input file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DraftFile {
    /// The local path.
    pub(crate) source: PathBuf,
    /// The path in the job's directory, relative to the directory that the command starts in.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) size: u64,
}

/// The inputs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) files: Vec<DraftFile>,
    /// Links, and their targets.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) dirs: Vec<String>,
}

/// The local directory that corresponds to the job's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobRoot {
    /// Where it is: empty for the current directory.
    pub(crate) path: PathBuf,
    /// The current directory in it: where the command starts.
    pub(crate) dir: Option<RelPath>,
}

impl JobRoot {
    /// The nearest directory, from the current directory up, that contains all inputs.
    pub(crate) fn around<'a>(cwd: &Path, drafts: impl Iterator<Item = &'a Draft>) -> Self {
        let climbs = |path: &str| path.split('/').take_while(|part| *part == "..").count();
        let most = drafts.flat_map(Draft::paths).map(climbs).max().unwrap_or(0);
        let Some(root) = cwd.ancestors().nth(most).filter(|_| most > 0) else {
            return Self::default();
        };
        let dir = cwd.strip_prefix(root).ok().and_then(|dir| dir.to_str()?.parse().ok());
        Self {
            path: root.to_owned(),
            dir,
        }
    }

    /// Converts a path relative to the current directory into one relative to this directory.
    pub(crate) fn path_of(&self, path: &str) -> String {
        let mut parts: Vec<&str> = self.dir.iter().flat_map(|dir| dir.as_str().split('/')).collect();
        for part in path.split('/') {
            match part {
                ".." => drop(parts.pop()),
                "" | "." => {}
                part => parts.push(part),
            }
        }
        parts.join("/")
    }
}

impl Draft {
    /// What was planned so far.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// All paths of it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(|file| file.path.as_str());
        let links = self.links.iter().map(|(path, _)| path.as_str());
        files.chain(links).chain(self.dirs.iter().map(String::as_str))
    }

    /// The inputs, with their paths in the job's directory.
    ///
    /// # Errors
    /// A usage error where a path cannot be sent.
    pub(crate) fn finish(self, root: &JobRoot) -> anyhow::Result<(Vec<Input>, Vec<Link>, Vec<RelPath>)> {
        let files = self.files.into_iter().map(|file| {
            Ok(Input {
                path: parsed(&root.path_of(&file.path))?,
                source: file.source,
                mode: file.mode,
                size: file.size,
            })
        });
        let files = files.collect::<anyhow::Result<Vec<_>>>()?;
        let links = self.links.into_iter().map(|(path, target)| {
            Ok(Link {
                path: parsed(&root.path_of(&path))?,
                target,
            })
        });
        let links = links.collect::<anyhow::Result<Vec<_>>>()?;
        let dirs = self.dirs.iter().map(|dir| root.path_of(dir)).filter(|dir| !dir.is_empty());
        let dirs = dirs.map(|dir| parsed(&dir)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((files, links, dirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_nearest_directory_that_holds_all() {
        let draft = |paths: &[&str]| Draft {
            dirs: paths.iter().map(ToString::to_string).collect(),
            ..Draft::default()
        };
        let cwd = Path::new("/p/app/src");
        let root = |paths: &[&str]| JobRoot::around(cwd, [&draft(paths)].into_iter());
        assert_eq!(root(&["a", "b/c"]), JobRoot::default());
        let above = root(&["a", "../conf.ini", "../../shared/x"]);
        assert_eq!(
            (above.path.to_str(), above.dir.as_ref().map(RelPath::as_str)),
            (Some("/p"), Some("app/src"))
        );
        assert_eq!(above.path_of("../conf.ini"), "app/conf.ini");
        assert_eq!(above.path_of("../../shared/x"), "shared/x");
        assert_eq!(above.path_of("a"), "app/src/a");
        assert_eq!(above.path_of(".."), "app");
    }
}
