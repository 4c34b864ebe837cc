//! Which inputs a command removed or renamed: those that were laid, and that nobody sees in the work directory at its end.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use bus::spec::RelPath;

use crate::inputs::Layout;

/// What was laid and was not seen again.
pub(crate) struct Gone<'a> {
    files: HashSet<&'a Path>,
    dirs: BTreeSet<&'a Path>,
    /// Whether nothing can be told.
    blind: bool,
}

impl<'a> Gone<'a> {
    /// All that was laid, until it is seen.
    pub(crate) fn of(laid: &'a Layout, dirs: &BTreeSet<&'a Path>) -> Self {
        // A link that says nothing stands for the job's packages.
        let links = laid
            .links
            .iter()
            .filter(|(_, target)| !target.is_empty())
            .map(|(path, _)| path.as_path());
        Self {
            files: laid.files.keys().map(PathBuf::as_path).chain(links).collect(),
            dirs: dirs.clone(),
            blind: false,
        }
    }

    /// A directory stands for no file: that one is gone.
    pub(crate) fn is_there(&mut self, path: &Path, is_dir: bool) {
        if is_dir {
            self.dirs.remove(path);
        } else {
            self.files.remove(path);
        }
    }

    /// Nobody can tell what stands there: the command may have taken the right to look. Without a path, or without the work directory
    /// itself, nothing can be told at all.
    pub(crate) fn unknown_below(&mut self, path: Option<&Path>) {
        match path.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => {
                self.files.retain(|file| !file.starts_with(path));
                self.dirs.retain(|dir| !dir.starts_with(path));
            }
            None => self.blind = true,
        }
    }

    /// What was not seen, in order, as far as it is wanted.
    pub(crate) fn removed(self, mut is_wanted: impl FnMut(&Path) -> bool) -> Vec<RelPath> {
        if self.blind {
            return Vec::new();
        }
        let all: BTreeSet<&Path> = self.files.into_iter().chain(self.dirs).collect();
        let wanted = all.into_iter().filter(|path| is_wanted(path));
        wanted.filter_map(|path| path.to_str()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_look_at_is_not_gone() {
        let laid = Layout {
            links: [("a", "x"), ("d/b", "x"), ("d/e/c", "x"), ("node_modules", "")]
                .map(|(path, target)| (PathBuf::from(path), target.to_owned()))
                .into(),
            ..Layout::default()
        };
        let dirs = laid.all_dirs();
        let removed = |gone: Gone<'_>| gone.removed(|_| true).iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut gone = Gone::of(&laid, &dirs);
        gone.unknown_below(Some(Path::new("d/e")));
        assert_eq!(removed(gone), ["a", "d", "d/b"]);
        let mut gone = Gone::of(&laid, &dirs);
        gone.is_there(Path::new("a"), false);
        gone.is_there(Path::new("d"), true);
        assert_eq!(removed(gone), ["d/b", "d/e", "d/e/c"]);
        for path in [None, Some(Path::new(""))] {
            let mut gone = Gone::of(&laid, &dirs);
            gone.unknown_below(path);
            assert!(removed(gone).is_empty());
        }
    }
}
