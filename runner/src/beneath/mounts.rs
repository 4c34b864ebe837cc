//! What is mounted where, as this process sees it.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// The mount points at a path and below it. The path is to be canonical.
///
/// # Errors
/// If `/proc/self/mountinfo` cannot be read.
pub(super) fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(points(&text).filter(|point| point.starts_with(path)).collect())
}

/// Makes sure that nothing is mounted at a path or below it.
///
/// # Errors
/// If something is, with the mount point.
pub(crate) fn nothing_mounted(path: &Path) -> io::Result<()> {
    match below(&path.canonicalize()?)?.first() {
        Some(point) => Err(io::Error::other(format!("{} is mounted in it", point.display()))),
        None => Ok(()),
    }
}

/// The mount points in a text as of `/proc/self/mountinfo`: the fifth field of each line.
fn points(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = text.split(|&byte| byte == b'\n');
    lines
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
}

/// A field in which the kernel wrote spaces and their like as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let octal = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = octal.map_or(after, |_| &after[3..]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_spaces() {
        let text = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     40 27 0:30 / /w/a\\040b\\134c rw shared:1 - tmpfs none rw\nbroken\n";
        let points: Vec<_> = points(text).collect();
        assert_eq!(points, [Path::new("/proc"), Path::new("/w/a b\\c")]);
    }
}
