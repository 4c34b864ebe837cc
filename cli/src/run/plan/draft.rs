//! What goes along, while it is being planned: paths from the current directory, which may lead above it.

use std::path::{Path, PathBuf};

use bus::spec::{RelPath, tree::Link};

use super::input::{Input, parsed};

/// A file that is to go along.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    /// Where it is.
    pub(crate) source: PathBuf,
    /// Where it will be, from the directory that the command starts in.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) size: u64,
}

/// What is to go along.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) files: Vec<Sending>,
    /// Links, and what they say.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) dirs: Vec<String>,
}

/// The directory that a job's work directory stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Root {
    /// Where it is: empty for the current directory.
    pub(crate) path: PathBuf,
    /// The current directory in it: where the command starts.
    pub(crate) dir: Option<RelPath>,
}

impl Root {
    /// The nearest directory, from the current one up, that holds all that goes along.
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

    /// A path from the current directory, as it is from this one.
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

    /// What goes along, by its paths in the job's work directory.
    ///
    /// # Errors
    /// A usage error where a path cannot be sent.
    pub(crate) fn finish(self, root: &Root) -> anyhow::Result<(Vec<Input>, Vec<Link>, Vec<RelPath>)> {
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
        let root = |paths: &[&str]| Root::around(cwd, [&draft(paths)].into_iter());
        assert_eq!(root(&["a", "b/c"]), Root::default());
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
