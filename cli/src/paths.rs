//! Paths by their words alone: nothing on the disk is looked at.

use std::path::{Component, Path, PathBuf};

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
    use super::*;

    #[test]
    fn paths_are_normalized_and_made_relative() {
        assert_eq!(normalized(Path::new("/a/./b/../c")), Some(PathBuf::from("/a/c")));
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/c/d")).as_deref(), Some("../c/d"));
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/b")).as_deref(), Some(""));
    }
}
