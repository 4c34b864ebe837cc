//! Reading a file without reading its holes.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

/// How many bytes of holes some files may have together: they cost no disk where they are, and are hashed and stored as zeros. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Holes {
    pub(super) max: u64,
    left: Arc<AtomicU64>,
}

impl Holes {
    /// So many bytes.
    #[must_use]
    pub fn at_most(max: u64) -> Self {
        Self {
            max,
            left: Arc::new(AtomicU64::new(max)),
        }
    }

    /// Takes so many of them, if they are left.
    pub(super) fn take(&self, length: u64) -> bool {
        let take = |left: u64| left.checked_sub(length);
        self.max == u64::MAX || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives back what was taken for a file that was not stored after all.
    pub(super) fn give_back(&self, length: u64) {
        if self.max < u64::MAX {
            self.left.fetch_add(length, Ordering::Relaxed);
        }
    }
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many bytes, read.
    Data(usize),
    /// So many zeros that stand nowhere.
    Hole(u64),
}

/// A file's pieces, from its start to its end.
pub(super) struct Extents<'a> {
    file: &'a File,
    at: u64,
    /// Up to where there is data, as far as it is known.
    data_until: u64,
}

impl<'a> Extents<'a> {
    pub(super) const fn new(file: &'a File) -> Self {
        Self {
            file,
            at: 0,
            data_until: 0,
        }
    }

    /// The next piece; nothing at the end. Data is read into the buffer, which it fills unless a hole or the end comes.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        if self.at >= self.data_until
            && let Some(hole) = self.look()?
        {
            self.at += hole;
            return Ok(Some(Piece::Hole(hole)));
        }
        let room = usize::try_from(self.data_until.saturating_sub(self.at))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = read_full(self.file, &mut buffer[..room], self.at)?;
        self.at += read as u64;
        Ok((read > 0).then_some(Piece::Data(read)))
    }

    /// Looks for data from here on; returns the length of the hole before it, if there is one.
    fn look(&mut self) -> io::Result<Option<u64>> {
        match seek(self.file, SeekFrom::Data(self.at)) {
            Ok(data) if data > self.at => Ok(Some(data - self.at)),
            Ok(_) => {
                self.data_until = seek(self.file, SeekFrom::Hole(self.at)).unwrap_or(u64::MAX);
                Ok(None)
            }
            // Nothing but a hole, or nothing at all, is left.
            Err(Errno::NXIO) => {
                let length = self.file.metadata()?.len();
                Ok(length.checked_sub(self.at).filter(|&hole| hole > 0))
            }
            // A file system that does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.data_until = u64::MAX;
                Ok(None)
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
