//! Where a file of this machine stands in the job's directory, and what the job is to call it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, FileType, Metadata},
    io::ErrorKind,
    os::unix::fs::FileTypeExt as _,
    path::{Component, Path, PathBuf},
};

use crate::paths::relative;

/// What a word of the command line is, as the name of a file.
#[derive(Debug)]
pub(crate) enum Look {
    /// No file's name.
    Nothing,
    /// A file that can be sent along.
    File(Metadata),
    /// A directory.
    Directory,
    /// A pipe or a socket, whose content cannot be sent along.
    Pipe,
    /// What cannot be looked at.
    Closed(std::io::Error),
}

/// What a word names in a directory.
pub(crate) fn look(cwd: &Path, word: &str) -> Look {
    // No program means all of the machine's files by a `/`: it is a separator, or a place of there.
    if word.is_empty() || word.bytes().all(|byte| byte == b'/') {
        return Look::Nothing;
    }
    match fs::metadata(cwd.join(word)) {
        Ok(meta) if meta.is_file() => Look::File(meta),
        Ok(meta) if meta.is_dir() => Look::Directory,
        Ok(meta) if is_pipe(meta.file_type()) => Look::Pipe,
        // Devices such as /dev/null are everywhere.
        Ok(_) => Look::Nothing,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Look::Closed(error),
        Err(_) => Look::Nothing,
    }
}

fn is_pipe(kind: FileType) -> bool {
    kind.is_fifo() || kind.is_socket()
}

/// A file that goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Below the current directory: at the same relative path. The word stays as it is if it is plain.
    Inside {
        /// The relative path.
        path: String,
        /// Whether the word itself leads there in the job's directory too.
        plain: bool,
    },
    /// Elsewhere.
    Outside {
        /// The file, with every link and `..` resolved.
        real: PathBuf,
        /// Its name.
        name: String,
    },
}

/// Where an existing file belongs. What lies in the project around the current directory (`top`) keeps its place from here.
pub(crate) fn place(cwd: &Path, top: &Path, word: &str) -> std::io::Result<Place> {
    let not_text = || std::io::Error::new(ErrorKind::InvalidData, "its path is not text (UTF-8)");
    let path = Path::new(word);
    if path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        let parts: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        return Ok(Place::Inside {
            path: parts.to_str().ok_or_else(not_text)?.to_owned(),
            plain: true,
        });
    }
    // The last link is not followed: a link that lies here is a file that lies here.
    let absolute = cwd.join(path);
    let real = match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize()?.join(name),
        // `..` has no name of its own.
        _ => absolute.canonicalize()?,
    };
    let Some(name) = real.file_name() else {
        return Err(std::io::Error::new(
            ErrorKind::InvalidInput,
            "it is the root of all files; name what is meant in it, or pass it as plain text with --no-input",
        ));
    };
    let cwd = cwd.canonicalize()?;
    match real.strip_prefix(&cwd) {
        Ok(inside) => Ok(Place::Inside {
            path: inside.to_str().ok_or_else(not_text)?.to_owned(),
            plain: false,
        }),
        Err(_) if real.starts_with(top) && real != top => Ok(Place::Inside {
            path: relative(&cwd, &real).ok_or_else(not_text)?,
            plain: false,
        }),
        Err(_) => Ok(Place::Outside {
            name: name.to_str().ok_or_else(not_text)?.to_owned(),
            real: real.clone(),
        }),
    }
}

/// The paths that are taken in a job's directory.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    files: BTreeSet<String>,
    dirs: BTreeSet<String>,
    /// What is from elsewhere, and the directories that stand for those where it is.
    outside: BTreeMap<PathBuf, String>,
    parents: BTreeMap<PathBuf, String>,
}

impl Taken {
    /// Takes the path of a file that lies inside. Says whether it is new.
    pub(crate) fn inside(&mut self, path: &str) -> bool {
        self.dirs.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        self.files.insert(path.to_owned())
    }

    /// Chooses a path for something from elsewhere: its name, in a directory that stands for the one where it is, and that nothing
    /// in the current directory has the name of. So nothing that the script makes in its own directory is taken for it, and the
    /// other way round (docs/decisions/0006-inputs-from-elsewhere.md).
    pub(crate) fn outside(&mut self, cwd: &Path, real: &Path, name: &str) -> String {
        let within = self.outside.iter().filter(|(known, _)| real.starts_with(known));
        if let Some((known, path)) = within.max_by_key(|(known, _)| known.components().count()) {
            let rest = real.strip_prefix(known).ok().and_then(Path::to_str).unwrap_or_default();
            return if rest.is_empty() { path.clone() } else { format!("{path}/{rest}") };
        }
        let parent = real.parent().unwrap_or(real).to_owned();
        let dir = self.parents.get(&parent).cloned().unwrap_or_else(|| {
            let is_free = |dir: &String| {
                let taken = self.files.contains(dir) || self.dirs.contains(dir);
                !taken && fs::symlink_metadata(cwd.join(dir)).is_err()
            };
            let mut names = (1..).map(|n| format!("rgrid-{n}"));
            names.find(is_free).unwrap_or_default()
        });
        let path = format!("{dir}/{name}");
        self.inside(&path);
        self.parents.insert(parent, dir);
        self.outside.insert(real.to_owned(), path.clone());
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_from_elsewhere_collides_with_nothing() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        fs::create_dir(temp.path().join("rgrid-2"))?;
        let mut taken = Taken::default();
        assert!(taken.inside("data/x.csv"));
        assert!(!taken.inside("data/x.csv"));
        let mut outside = |real: &str| taken.outside(temp.path(), Path::new(real), real.rsplit('/').next().unwrap_or_default());
        assert_eq!(outside("/a/x.csv"), "rgrid-1/x.csv");
        // Here is a directory `rgrid-2`.
        assert_eq!(outside("/b/x.csv"), "rgrid-3/x.csv");
        assert_eq!(outside("/a/x.csv"), "rgrid-1/x.csv");
        assert_eq!(outside("/a/data"), "rgrid-1/data");
        assert_eq!(outside("/a/data/deep/y"), "rgrid-1/data/deep/y");
        Ok(())
    }

    #[test]
    fn files_keep_their_place_or_come_by_name() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let cwd = temp.path().join("here");
        fs::create_dir_all(cwd.join("data"))?;
        fs::write(cwd.join("data/x"), "")?;
        fs::write(temp.path().join("y"), "")?;
        let inside = |path: &str, plain| Place::Inside {
            path: path.to_owned(),
            plain,
        };
        assert_eq!(place(&cwd, &cwd, "data/x")?, inside("data/x", true));
        assert_eq!(place(&cwd, &cwd, "./data//x")?, inside("data/x", true));
        assert_eq!(place(&cwd, &cwd, "data/../data/x")?, inside("data/x", false));
        assert_eq!(place(&cwd, &cwd, &cwd.join("data/x").to_string_lossy())?, inside("data/x", false));
        let real = temp.path().canonicalize()?.join("y");
        assert_eq!(
            place(&cwd, &cwd, "../y")?,
            Place::Outside {
                real,
                name: "y".to_owned()
            }
        );
        assert!(matches!(place(&cwd, &cwd, "..")?, Place::Outside { real, .. } if real == temp.path().canonicalize()?));
        assert!(place(&cwd, &cwd, "/..").is_err());
        assert!(matches!(look(&cwd, "data"), Look::Directory));
        assert!(matches!(look(&cwd, "/"), Look::Nothing));
        assert!(matches!(look(&cwd, "nothing"), Look::Nothing));
        assert!(matches!(look(&cwd, "/dev/null"), Look::Nothing));
        Ok(())
    }
}
