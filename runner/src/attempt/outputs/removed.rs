//! The inputs that a command removed or renamed: those that were staged and are not in the work directory at its end.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use bus::spec::RelPath;

use crate::inputs::StagedInputs;

/// The staged inputs that were not seen again.
pub(crate) struct MissingInputs<'a> {
    files: HashSet<&'a Path>,
    dirs: BTreeSet<&'a Path>,
    /// Whether nothing is known.
    blind: bool,
}

impl<'a> MissingInputs<'a> {
    /// All that was staged, until it is seen.
    pub(crate) fn of(staged: &'a StagedInputs, dirs: &BTreeSet<&'a Path>) -> Self {
        // A link that says nothing stands for the job's packages.
        let links = staged
            .links
            .iter()
            .filter(|(_, target)| !target.is_empty())
            .map(|(path, _)| path.as_path());
        Self {
            files: staged.files.keys().map(PathBuf::as_path).chain(links).collect(),
            dirs: dirs.clone(),
            blind: false,
        }
    }

    /// Notes that this path exists; a directory in the place of a file does not count as the file.
    pub(crate) fn seen(&mut self, path: &Path, is_dir: bool) {
        if is_dir {
            self.dirs.remove(path);
        } else {
            self.files.remove(path);
        }
    }

    /// Notes that nothing is known of the files below a path, as where the command removed the permission to read a directory. Without a
    /// path, or for the work directory itself, nothing is known at all.
    pub(crate) fn unknown_below(&mut self, path: Option<&Path>) {
        match path.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => {
                self.files.retain(|file| !file.starts_with(path));
                self.dirs.retain(|dir| !dir.starts_with(path));
            }
            None => self.blind = true,
        }
    }

    /// The inputs that were not seen, in order, as far as they are wanted.
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
    fn an_input_below_an_unreadable_directory_is_not_reported_as_removed() {
        let staged = StagedInputs {
            links: [("a", "x"), ("d/b", "x"), ("d/e/c", "x"), ("node_modules", "")]
                .map(|(path, target)| (PathBuf::from(path), target.to_owned()))
                .into(),
            ..StagedInputs::default()
        };
        let dirs = staged.all_dirs();
        let removed = |gone: MissingInputs<'_>| gone.removed(|_| true).iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut gone = MissingInputs::of(&staged, &dirs);
        gone.unknown_below(Some(Path::new("d/e")));
        assert_eq!(removed(gone), ["a", "d", "d/b"]);
        let mut gone = MissingInputs::of(&staged, &dirs);
        gone.seen(Path::new("a"), false);
        gone.seen(Path::new("d"), true);
        assert_eq!(removed(gone), ["d/b", "d/e", "d/e/c"]);
        for path in [None, Some(Path::new(""))] {
            let mut gone = MissingInputs::of(&staged, &dirs);
            gone.unknown_below(path);
            assert!(removed(gone).is_empty());
        }
    }
}
