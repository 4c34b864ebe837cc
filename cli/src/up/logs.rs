//! The parts' logs: one file each, kept small.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A log longer than this is moved aside, to `<name>.log.1`.
const MAX_BYTES: u64 = 16 << 20;
/// How much of a log's end is looked at for its last line.
const TAIL_BYTES: u64 = 8 << 10;

/// Opens a log for a process that is about to start: appended to, moved aside first if it is too long.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if too_long(path) {
        fs::rename(path, aside(path))?;
    }
    File::options().create(true).append(true).open(path)
}

/// Shortens a log that a process is still writing to: copied aside, and emptied. What is written between the two is lost; the
/// process appends, so it goes on at the new end.
pub(super) fn bound(path: &Path) -> io::Result<()> {
    if too_long(path) {
        fs::copy(path, aside(path))?;
        File::options().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

/// The last line that says something of what stands in a log after `from` bytes, cut to what can be shown.
pub(super) fn last_line(path: &Path, from: u64) -> Option<String> {
    use io::{Read as _, Seek as _};
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(from))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(400).collect())
}

fn too_long(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() > MAX_BYTES)
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_log_that_is_too_long_is_moved_aside() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("api.log");
        let mut writer = open(&path)?;
        writeln!(writer, "first\n\n")?;
        bound(&path)?;
        assert_eq!(last_line(&path, 0).as_deref(), Some("first"));
        assert_eq!(last_line(&path, 7), None);
        writer.write_all(&vec![b'x'; usize::try_from(MAX_BYTES)?])?;
        bound(&path)?;
        writeln!(writer, "next")?;
        assert_eq!(fs::read_to_string(&path)?, "next\n");
        assert!(fs::metadata(dir.path().join("api.log.1"))?.len() > MAX_BYTES);
        Ok(())
    }
}
