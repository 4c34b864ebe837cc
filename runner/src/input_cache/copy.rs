//! Making a job's own file of a kept one.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

use bus::ids::Digest;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::beneath::Stop;

/// How many bytes are copied between two looks at whether anybody still wants them.
const STEP: u64 = 64 << 20;
/// The buffer of a copy that is verified, in bytes.
const BUFFER: usize = 256 << 10;

/// Copies a file into an empty one: as a clone, where `clones` says that this may work, else within the kernel. Reads the whole content and
/// returns its digest, unless it is proven already.
///
/// # Errors
/// If either file's disk fails, or the work is stopped.
pub(super) fn copy(from: &File, to: &File, clones: &AtomicBool, proven: bool, stop: &Stop) -> io::Result<Option<Digest>> {
    let cloned = clones.load(Ordering::Relaxed) && clone(from, to, clones)?;
    match (cloned, proven) {
        (true, true) => Ok(None),
        // Not the kept file: what is read is what the job gets.
        (true, false) => verified(to, None, stop).map(Some),
        (false, true) => in_kernel(from, to, stop).map(|()| None),
        (false, false) => verified(from, Some(to), stop).map(Some),
    }
}

/// Says whether the file was cloned. Where that cannot be, it is not tried again.
fn clone(from: &File, to: &File, clones: &AtomicBool) -> io::Result<bool> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        Err(Errno::NOSPC | Errno::DQUOT) => Err(io::ErrorKind::StorageFull.into()),
        Err(_) => {
            clones.store(false, Ordering::Relaxed);
            Ok(false)
        }
    }
}

/// Copies by `copy_file_range`, and by reads and writes where that does not work.
fn in_kernel(from: &File, mut to: &File, stop: &Stop) -> io::Result<()> {
    loop {
        go_on(stop)?;
        if io::copy(&mut from.take(STEP), &mut to)? == 0 {
            return Ok(());
        }
    }
}

/// Reads a file as a whole, and writes it to another one if there is one.
fn verified(mut from: &File, mut to: Option<&File>, stop: &Stop) -> io::Result<Digest> {
    let mut buffer = vec![0; BUFFER];
    let mut hasher = Sha256::new();
    from.rewind()?;
    loop {
        go_on(stop)?;
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(Digest::finish(hasher)),
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(read);
        if let Some(to) = &mut to {
            to.write_all(read)?;
        }
    }
}

fn go_on(stop: &Stop) -> io::Result<()> {
    if stop.is_stopped() {
        return Err(io::Error::other("nobody waits for it any more"));
    }
    Ok(())
}
