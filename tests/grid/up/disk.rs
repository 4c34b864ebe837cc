//! A full disk under the whole grid: nothing acknowledged is lost, and everything goes on by itself once there is room.

use std::fs::File;

use super::*;

/// A small disk of its own, in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it there. Nothing where this user may not mount.
    fn mount(dir: &Path, size: &str) -> Result<Option<Self>> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"])
            .arg(dir);
        Ok(mount.stderr(Stdio::null()).status()?.success().then(|| Self(dir.to_owned())))
    }

    fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.0)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Takes all room that is left.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = File::create(&path)?;
        let block = vec![b'x'; 1 << 16];
        loop {
            match std::io::Write::write(&mut file, &block) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(self.free()? < 1 << 16, "{} bytes are free", self.free()?);
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Runs a job of the grid in `place`, and says whether it succeeded.
fn runs(place: &Place) -> Result<bool> {
    let tests = std::env::current_exe()?;
    let rgrid = tests.ancestors().nth(2).context("no target directory")?.join("rgrid");
    let output = Command::new("timeout")
        .arg("30")
        .arg(rgrid)
        .args(["run", "--executor", "process", "--", "/bin/echo", "hello"])
        .env("RGRID_DATA_DIR", place.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .output()?;
    Ok(output.status.success() && output.stdout == b"hello\n")
}

#[test]
fn a_full_disk_is_said_and_everything_goes_on_once_there_is_room() -> Result<()> {
    let place = Place::new()?;
    let Some(disk) = SmallDisk::mount(place.path(), "400m")? else {
        eprintln!("this user may not mount a small disk; a full one is not tried");
        return Ok(());
    };
    // Dropped before its disk: a grid that is left can only be taken down while it has one.
    let place = place;
    place.up()?;
    ensure!(runs(&place)?, "a job runs while there is room");

    let ballast = disk.fill()?;
    let says = |words: &str| {
        eventually(&format!("the grid says `{words}`"), || {
            Ok(place.log("up.log").contains(words).then_some(()))
        })
    };
    says("is full: the grid accepts nothing")?;
    // Until nats-server meets the end of the disk, it has what it had reserved.
    eventually("nothing more is accepted", || Ok((!runs(&place)?).then_some(())))?;
    fs::remove_file(ballast)?;

    says("the disk has free space again")?;
    eventually("a job runs again", || Ok(runs(&place)?.then_some(())))?;
    place.down()?;
    drop(disk);
    Ok(())
}
