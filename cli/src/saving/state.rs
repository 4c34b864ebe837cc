//! What is remembered of what was saved, outside of the user's own directories: files of lines, which only grow and tolerate garbage.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};

/// The most that is read of one such file, in bytes.
const MOST: u64 = 64 << 20;

/// The directory of rgrid's state: `$XDG_STATE_HOME/rgrid`, or `~/.local/state/rgrid`; nothing where neither is known.
pub(crate) fn dir() -> Option<PathBuf> {
    if cfg!(test) {
        // Unit tests leave nothing in anybody's home.
        return None;
    }
    let of = |name: &str| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = of("XDG_STATE_HOME").or_else(|| of("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("rgrid"))
}

/// Appends lines at once, while other processes may do the same; then leaves the file to `shrink` where it is larger than `bound` bytes: what that
/// returns takes its place.
///
/// # Errors
/// If the disk does not take them.
pub(crate) fn append<T: Serialize>(path: &Path, lines: &[T], bound: u64, shrink: impl FnOnce(&[u8]) -> Vec<u8>) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    // The line before may have been torn by a kill.
    let mut text = vec![b'\n'];
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    let mut file = locked(path)?;
    file.write_all(&text)?;
    if file.metadata()?.len() > bound {
        let smaller = shrink(&bytes(path)?);
        let beside = path.with_extension("new");
        fs::write(&beside, smaller)?;
        fs::rename(&beside, path)?;
    }
    Ok(())
}

/// The file, once nobody else writes to it, and nobody has put another in its place.
fn locked(path: &Path) -> io::Result<fs::File> {
    for _ in 0..100 {
        let file = fs::File::options().create(true).append(true).mode(0o600).open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        if fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino())) {
            return Ok(file);
        }
    }
    Err(io::Error::other("the file is replaced all the time"))
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The lines of a file that can be read as such, in order; none where there is no file.
pub(crate) fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    parse(&bytes(path).unwrap_or_default())
}

/// The lines of a text that can be read as such, in order.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Vec<T> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}
