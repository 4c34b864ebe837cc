//! What exists at a path on this machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bus::ids::Digest;
use sha2::{Digest as _, Sha256};

/// Up to so many bytes, reading a file takes less than changing threads.
const LITTLE: u64 = 64 << 10;

/// What exists at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// Nothing.
    Nothing,
    /// A file or a link, with what identifies its content.
    Leaf(Digest),
    /// A directory.
    Directory,
    /// A pipe, a socket or a device.
    Special,
}

/// What identifies a link: what it says.
pub(crate) fn link(target: &str) -> Digest {
    Digest::of(format!("link\0{target}").as_bytes())
}

/// Looks at a path, without following it if it is a link. A file is read to its end.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn path_kind(path: &Path) -> io::Result<PathKind> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(PathKind::Nothing),
        Err(error) => return Err(error),
    };
    if meta.is_symlink() {
        return Ok(PathKind::Leaf(link(&fs::read_link(path)?.to_string_lossy())));
    }
    if meta.is_dir() {
        return Ok(PathKind::Directory);
    }
    if !meta.is_file() {
        return Ok(PathKind::Special);
    }
    let mut hasher = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(PathKind::Leaf(Digest::finish(hasher)))
}

/// As [`look`], on a thread where it holds nobody up if there is much to read.
///
/// # Errors
/// As there.
pub(crate) async fn path_kind_of(path: PathBuf) -> io::Result<PathKind> {
    if fs::symlink_metadata(&path).map_or(true, |meta| !meta.is_file() || meta.len() <= LITTLE) {
        return path_kind(&path);
    }
    tokio::task::spawn_blocking(move || path_kind(&path))
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_kind_of_thing_is_known() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        fs::write(at("f"), "x")?;
        symlink("f", at("l"))?;
        assert_eq!(path_kind(&at("f"))?, PathKind::Leaf(Digest::of(b"x")));
        assert_eq!(path_kind(&at("l"))?, PathKind::Leaf(link("f")), "a link is not followed");
        assert_eq!(path_kind(dir.path())?, PathKind::Directory);
        assert_eq!(path_kind(&at("none"))?, PathKind::Nothing);
        assert_eq!(path_kind(&at("f/below"))?, PathKind::Nothing);
        Ok(())
    }
}
