//! Reads a file without reading its holes.

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

/// How many bytes of holes several files may have together: holes take no disk space, and are hashed and stored as zeros. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Holes {
    pub(super) max: u64,
    left: Arc<AtomicU64>,
}

impl Holes {
    /// A limit of `max` bytes.
    #[must_use]
    pub fn at_most(max: u64) -> Self {
        Self {
            max,
            left: Arc::new(AtomicU64::new(max)),
        }
    }

    /// Uses `length` bytes of the limit, if they are left.
    pub(super) fn take(&self, length: u64) -> bool {
        let take = |left: u64| left.checked_sub(length);
        self.max == u64::MAX || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Returns bytes that were used for a file that was not stored.
    pub(super) fn give_back(&self, length: u64) {
        if self.max < u64::MAX {
            self.left.fetch_add(length, Ordering::Relaxed);
        }
    }
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// This many bytes, read into the buffer.
    Data(usize),
    /// A hole of this many bytes.
    Hole(u64),
}

/// A file's pieces, from its start to its end.
pub(super) struct Extents<'a> {
    file: &'a File,
    at: u64,
    /// The end of the current data.
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

    /// The next piece; `None` at the end. Data is read into the buffer, and fills it unless a hole or the end comes first.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        if self.at >= self.data_until
            && let Some(hole) = self.find_data()?
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

    /// Finds the next data; returns the length of the hole before it, if there is one.
    fn find_data(&mut self) -> io::Result<Option<u64>> {
        match seek(self.file, SeekFrom::Data(self.at)) {
            Ok(data) if data > self.at => Ok(Some(data - self.at)),
            Ok(_) => {
                self.data_until = seek(self.file, SeekFrom::Hole(self.at)).unwrap_or(u64::MAX);
                Ok(None)
            }
            // Only a hole, or nothing, is left.
            Err(Errno::NXIO) => {
                let length = self.file.metadata()?.len();
                Ok(length.checked_sub(self.at).filter(|&hole| hole > 0))
            }
            // The file system does not report holes.
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
