//! The path of a local file in the job's directory, and the word that the job uses for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, FileType, Metadata},
    io::ErrorKind,
    os::unix::fs::FileTypeExt as _,
    path::{Component, Path, PathBuf},
};

use crate::paths::relative;

/// What a word of the command line names.
#[derive(Debug)]
pub(crate) enum PathKind {
    /// No file.
    Nothing,
    /// A file that can be sent.
    File(Metadata),
    /// A directory.
    Directory,
    /// A pipe or a socket, whose content cannot be sent.
    Pipe,
    /// A path that cannot be read.
    Closed(std::io::Error),
}

/// What a word names in a directory.
pub(crate) fn path_kind(cwd: &Path, word: &str) -> PathKind {
    // No program means all of the machine's files by a `/`: it is a separator, or a place of there.
    if word.is_empty() || word.bytes().all(|byte| byte == b'/') {
        return PathKind::Nothing;
    }
    match fs::metadata(cwd.join(word)) {
        Ok(meta) if meta.is_file() => PathKind::File(meta),
        Ok(meta) if meta.is_dir() => PathKind::Directory,
        Ok(meta) if is_pipe(meta.file_type()) => PathKind::Pipe,
        // Devices such as /dev/null are everywhere.
        Ok(_) => PathKind::Nothing,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => PathKind::Closed(error),
        Err(_) => PathKind::Nothing,
    }
}

fn is_pipe(kind: FileType) -> bool {
    kind.is_fifo() || kind.is_socket()
}

/// An input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobPath {
    /// Below the current directory: the job's path is the same relative path.
    Inside {
        /// The relative path.
        path: String,
        /// Whether the word is unchanged in the job's directory.
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

/// The path of an existing file in the job's directory. Files of the project around the current directory (`top`) keep their relative path.
pub(crate) fn job_path(cwd: &Path, top: &Path, word: &str) -> std::io::Result<JobPath> {
    let not_text = || std::io::Error::new(ErrorKind::InvalidData, "its path is not text (UTF-8)");
    let path = Path::new(word);
    if path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        let parts: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        return Ok(JobPath::Inside {
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
            "it is the root directory; name a file or directory in it, or pass it as plain text with --no-input",
        ));
    };
    let cwd = cwd.canonicalize()?;
    match real.strip_prefix(&cwd) {
        Ok(inside) => Ok(JobPath::Inside {
            path: inside.to_str().ok_or_else(not_text)?.to_owned(),
            plain: false,
        }),
        Err(_) if real.starts_with(top) && real != top => Ok(JobPath::Inside {
            path: relative(&cwd, &real).ok_or_else(not_text)?,
            plain: false,
        }),
        Err(_) => Ok(JobPath::Outside {
            name: name.to_str().ok_or_else(not_text)?.to_owned(),
            real: real.clone(),
        }),
    }
}

/// The paths that are in use in a job's directory.
#[derive(Debug, Default)]
pub(crate) struct UsedPaths {
    files: BTreeSet<String>,
    dirs: BTreeSet<String>,
    /// What is from elsewhere, and the directories that stand for those where it is.
    outside: BTreeMap<PathBuf, String>,
    parents: BTreeMap<PathBuf, String>,
}

impl UsedPaths {
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
                let used_paths = self.files.contains(dir) || self.dirs.contains(dir);
                !used_paths && fs::symlink_metadata(cwd.join(dir)).is_err()
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
        let mut used_paths = UsedPaths::default();
        assert!(used_paths.inside("data/x.csv"));
        assert!(!used_paths.inside("data/x.csv"));
        let mut outside = |real: &str| used_paths.outside(temp.path(), Path::new(real), real.rsplit('/').next().unwrap_or_default());
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
        let inside = |path: &str, plain| JobPath::Inside {
            path: path.to_owned(),
            plain,
        };
        assert_eq!(job_path(&cwd, &cwd, "data/x")?, inside("data/x", true));
        assert_eq!(job_path(&cwd, &cwd, "./data//x")?, inside("data/x", true));
        assert_eq!(job_path(&cwd, &cwd, "data/../data/x")?, inside("data/x", false));
        assert_eq!(
            job_path(&cwd, &cwd, &cwd.join("data/x").to_string_lossy())?,
            inside("data/x", false)
        );
        let real = temp.path().canonicalize()?.join("y");
        assert_eq!(
            job_path(&cwd, &cwd, "../y")?,
            JobPath::Outside {
                real,
                name: "y".to_owned()
            }
        );
        assert!(matches!(job_path(&cwd, &cwd, "..")?, JobPath::Outside { real, .. } if real == temp.path().canonicalize()?));
        assert!(job_path(&cwd, &cwd, "/..").is_err());
        assert!(matches!(path_kind(&cwd, "data"), PathKind::Directory));
        assert!(matches!(path_kind(&cwd, "/"), PathKind::Nothing));
        assert!(matches!(path_kind(&cwd, "nothing"), PathKind::Nothing));
        assert!(matches!(path_kind(&cwd, "/dev/null"), PathKind::Nothing));
        Ok(())
    }
}
