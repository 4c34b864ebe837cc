//! Where a file of this machine stands in the job's directory, and what the job is to call it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, FileType, Metadata},
    io::ErrorKind,
    os::unix::fs::FileTypeExt as _,
    path::{Component, Path, PathBuf},
};

/// What a word of the command line is, as the name of a file.
#[derive(Debug)]
pub(super) enum Look {
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
pub(super) fn look(cwd: &Path, word: &str) -> Look {
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
pub(super) enum Place {
    /// Below the current directory: at the same relative path. The word stays as it is if it is plain.
    Inside {
        /// The relative path.
        path: String,
        /// Whether the word itself leads there in the job's directory too.
        plain: bool,
    },
    /// Elsewhere: by its name alone.
    Outside {
        /// The file, with every link and `..` resolved.
        real: PathBuf,
        /// Its name.
        name: String,
    },
}

/// Where an existing file belongs.
pub(super) fn place(cwd: &Path, word: &str) -> std::io::Result<Place> {
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
    match real.strip_prefix(cwd.canonicalize()?) {
        Ok(inside) => Ok(Place::Inside {
            path: inside.to_str().ok_or_else(not_text)?.to_owned(),
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
pub(super) struct Taken {
    files: BTreeSet<String>,
    dirs: BTreeSet<String>,
    outside: BTreeMap<PathBuf, String>,
}

impl Taken {
    /// Takes the path of a file that lies inside. Says whether it is new.
    pub(super) fn inside(&mut self, path: &str) -> bool {
        self.dirs.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        self.files.insert(path.to_owned())
    }

    /// Chooses a path for a file from elsewhere: its name, below a directory of its own where that is taken, or where what must
    /// stand beside it would be in the way of something. The same file gets the same path again.
    pub(super) fn outside(&mut self, real: &Path, name: &str, beside: &[String]) -> (String, bool) {
        if let Some(path) = self.outside.get(real) {
            return (path.clone(), false);
        }
        let is_free = |path: &str| {
            let in_the_way = path.match_indices('/').any(|(at, _)| self.files.contains(&path[..at]));
            !in_the_way && !self.files.contains(path) && !self.dirs.contains(path)
        };
        let candidates = std::iter::once(String::new()).chain((2..).map(|n| format!("rgrid-{n}/")));
        let mut fitting = candidates.filter(|dir| {
            let all = beside.iter().map(String::as_str).chain([name]);
            all.map(|path| format!("{dir}{path}")).all(|path| is_free(&path))
        });
        let path = format!("{}{name}", fitting.next().unwrap_or_default());
        self.inside(&path);
        self.outside.insert(real.to_owned(), path.clone());
        (path, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_names_from_elsewhere_do_not_collide() {
        let mut taken = Taken::default();
        assert!(taken.inside("data/x.csv"));
        assert!(!taken.inside("data/x.csv"));
        assert_eq!(taken.outside(Path::new("/a/x.csv"), "x.csv", &[]), ("x.csv".to_owned(), true));
        assert_eq!(
            taken.outside(Path::new("/b/x.csv"), "x.csv", &[]),
            ("rgrid-2/x.csv".to_owned(), true)
        );
        assert_eq!(taken.outside(Path::new("/a/x.csv"), "x.csv", &[]), ("x.csv".to_owned(), false));
        // A directory of the job has that name.
        assert_eq!(taken.outside(Path::new("/a/data"), "data", &[]), ("rgrid-2/data".to_owned(), true));
        // A script's modules stand beside it, also where only one of them would be in the way (as `rgrid-2/data` is).
        let modules = ["m.py".to_owned(), "data/x.csv".to_owned()];
        assert_eq!(
            taken.outside(Path::new("/a/s.py"), "s.py", &modules),
            ("rgrid-3/s.py".to_owned(), true)
        );
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
        assert_eq!(place(&cwd, "data/x")?, inside("data/x", true));
        assert_eq!(place(&cwd, "./data//x")?, inside("data/x", true));
        assert_eq!(place(&cwd, "data/../data/x")?, inside("data/x", false));
        assert_eq!(place(&cwd, &cwd.join("data/x").to_string_lossy())?, inside("data/x", false));
        let real = temp.path().canonicalize()?.join("y");
        assert_eq!(
            place(&cwd, "../y")?,
            Place::Outside {
                real,
                name: "y".to_owned()
            }
        );
        assert!(matches!(place(&cwd, "..")?, Place::Outside { real, .. } if real == temp.path().canonicalize()?));
        assert!(place(&cwd, "/..").is_err());
        assert!(matches!(look(&cwd, "data"), Look::Directory));
        assert!(matches!(look(&cwd, "/"), Look::Nothing));
        assert!(matches!(look(&cwd, "nothing"), Look::Nothing));
        assert!(matches!(look(&cwd, "/dev/null"), Look::Nothing));
        Ok(())
    }
}
