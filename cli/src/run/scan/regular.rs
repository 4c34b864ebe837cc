//! Reading files that others laid: never a pipe or a device, and never more than is expected.

use std::{
    fs::{Metadata, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// The content of a regular file, if it has no more than so many bytes. A pipe would be waited for, and a device never ends.
pub(crate) fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let content = head(path, most.saturating_add(1))?;
    (content.len() as u64 <= most).then_some(content)
}

/// The first bytes of a regular file.
pub(crate) fn head(path: &Path, most: u64) -> Option<Vec<u8>> {
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path).ok()?;
    let meta = file.metadata().ok().filter(Metadata::is_file)?;
    // One byte more than there should be: the read that finds the end needs no more room.
    let expected = meta.len().min(most).saturating_add(1);
    let mut content = Vec::with_capacity(usize::try_from(expected).ok()?);
    file.take(most).read_to_end(&mut content).is_ok().then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_devices_are_not_read() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let pipe = temp.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)?;
        std::os::unix::fs::symlink("/dev/zero", temp.path().join("zero"))?;
        std::fs::write(temp.path().join("file"), "12345")?;
        assert_eq!(read(&pipe, 10), None);
        assert_eq!(read(&temp.path().join("zero"), 10), None);
        assert_eq!(read(&temp.path().join("file"), 4), None);
        assert_eq!(read(&temp.path().join("file"), 5).as_deref(), Some(&b"12345"[..]));
        assert_eq!(head(&temp.path().join("file"), 2).as_deref(), Some(&b"12"[..]));
        Ok(())
    }
}
