//! A disk that was full. nats-server 2.15 closes a stream whose write failed, and answers no publish to it until it is started
//! again, also when there is room again (tried). So the supervisor restarts it then.

use std::{io, path::Path, time::Duration};

/// How often the disk is looked at.
pub(super) const PERIOD: Duration = Duration::from_secs(2);
/// With less room than this, in bytes, a write may have failed: one block of a stream is up to 8 MiB.
const FULL: u64 = 16 << 20;
/// With as much room as this, in bytes, there is room again.
const ROOM: u64 = 64 << 20;

/// What is known of the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    full: bool,
}

/// What became of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is full, since now.
    Full,
    /// There is room again, since now.
    Room,
}

impl Disk {
    /// Takes in how much room there is, in bytes, and says what that changes.
    pub(super) fn look(&mut self, free: u64) -> Option<Turn> {
        if !self.full && free < FULL {
            self.full = true;
            return Some(Turn::Full);
        }
        if self.full && free >= ROOM {
            self.full = false;
            return Some(Turn::Room);
        }
        None
    }
}

/// The room that is left for us on a directory's disk, in bytes.
pub(super) fn free(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_turns_once_each_way() {
        let mut disk = Disk::default();
        let looks = [1 << 30, FULL - 1, 0, FULL, ROOM - 1, ROOM, 1 << 30, 3].map(|free| disk.look(free));
        let (full, room) = (Some(Turn::Full), Some(Turn::Room));
        assert_eq!(looks, [None, full, None, None, None, room, None, full]);
    }
}
