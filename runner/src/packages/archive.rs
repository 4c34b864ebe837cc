//! Environments as archives: tar, compressed with zstd. What comes out of one is trusted with nothing but its own directory.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use bus::spec::{RelPath, tree::Link};
use chrono::Utc;
use store::{Files, PackagesEntry, ZSTD_WINDOW_LOG_MAX};
use tar::{EntryType, Header};
use walkdir::WalkDir;

use super::{
    Error,
    disk::{Installed, New},
};
use crate::patience::patiently;

/// zstd's own default: fast, and small enough.
const LEVEL: i32 = 3;
/// The most entries of an archive.
const MOST: usize = 1_000_000;

/// Packs an environment, and stores it by its content.
///
/// # Errors
/// If the disk or the store fails.
pub(super) async fn store(files: &Files, held: &Installed, new: &New) -> Result<PackagesEntry, Error> {
    let (env, to) = (held.dir(), new.archive());
    let target = to.clone();
    let packing = tokio::task::spawn_blocking(move || pack(&env, File::create_new(&target)?));
    let unpacked = packing
        .await
        .map_err(|error| Error::Disk(io::Error::other(error)))?
        .map_err(Error::Disk)?;
    let (archive, size) = patiently("store packages", || files.put_file(&to)).await?;
    let now = Utc::now();
    Ok(PackagesEntry {
        archive,
        size,
        unpacked,
        made_at: now,
        used_at: now,
    })
}

/// Fetches an archive, verified, and unpacks it where an environment is made; says how many bytes that came to.
///
/// # Errors
/// If the store fails, or the archive is not one that [`store`] made.
pub(super) async fn fetch(files: &Files, entry: &PackagesEntry, new: &New, max_bytes: u64) -> Result<u64, Error> {
    if entry.unpacked > max_bytes {
        return Err(Error::Archive(format!(
            "they have {} bytes, and this worker keeps {max_bytes} (--cache-bytes)",
            entry.unpacked
        )));
    }
    let from = new.archive();
    patiently("fetch packages", || files.get_file(&entry.archive, &from, false)).await?;
    let (env, most) = (new.env(), entry.unpacked);
    let unpacking = tokio::task::spawn_blocking(move || unpack(File::open(&from)?, &env, most));
    let unpacked = unpacking.await.map_err(|error| Error::Disk(io::Error::other(error)))?;
    unpacked.map_err(|error| Error::Archive(error.to_string()))
}

/// Writes what stands below a directory, in the order of its names and without times and owners: the same content is the same
/// archive. A link that leads out, such as a virtual environment's interpreter, is this machine's own, and left out.
fn pack(env: &Path, to: File) -> io::Result<u64> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(to, LEVEL)?);
    let mut bytes = 0;
    for entry in WalkDir::new(env).min_depth(1).sort_by_file_name() {
        let entry = entry?;
        let relative = entry.path().strip_prefix(env).map_err(io::Error::other)?;
        let name = relative
            .to_str()
            .ok_or_else(|| io::Error::other(format!("the name {} is not UTF-8", relative.display())))?;
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        let kind = entry.file_type();
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, name, io::empty())?;
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            let link = target.to_str().zip(name.parse().ok()).map(|(target, path)| Link {
                path,
                target: target.to_owned(),
            });
            let Some(link) = link.filter(|link| link.leads_to().is_some()) else {
                continue;
            };
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            tar.append_link(&mut header, name, &link.target)?;
        } else {
            let meta = entry.metadata()?;
            header.set_mode(if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 });
            header.set_size(meta.len());
            bytes += meta.len();
            tar.append_data(&mut header, name, File::open(entry.path())?)?;
        }
    }
    tar.into_inner()?.finish()?.sync_all()?;
    Ok(bytes)
}

/// Unpacks into a directory that it makes: files and directories at paths below it, each path once, and links that stay inside, laid
/// when all else is there so that nothing is written through one. At most so many bytes.
fn unpack(from: impl io::Read, env: &Path, most: u64) -> io::Result<u64> {
    fs::create_dir(env)?;
    let mut plain = zstd::Decoder::new(from)?;
    plain.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    let mut tar = tar::Archive::new(plain);
    let (mut links, mut seen, mut bytes) = (Vec::<Link>::new(), BTreeSet::new(), 0_u64);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let wrong = |path: &str, what: &str| io::Error::other(format!("`{}` {what}", path.escape_debug()));
        let bytes_of_path = entry.path_bytes().into_owned();
        let text = String::from_utf8(bytes_of_path).map_err(|_| io::Error::other("a name is not UTF-8"))?;
        let path: RelPath = text
            .trim_end_matches('/')
            .parse()
            .map_err(|_| wrong(&text, "is not a path in the archive's directory"))?;
        if !seen.insert(path.clone()) || seen.len() > MOST {
            return Err(wrong(&text, "is there twice, or one too many"));
        }
        let target = env.join(path.as_str());
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&target)?,
            EntryType::Regular => {
                fs::create_dir_all(target.parent().unwrap_or(env))?;
                let executable = entry.header().mode()? & 0o111 != 0;
                // Never through something that is there.
                let mut file = File::options().write(true).create_new(true).mode(0o644).open(&target)?;
                let left = most.saturating_sub(bytes);
                let written = io::copy(&mut entry.by_ref().take(left + 1), &mut file)?;
                if written > left {
                    return Err(wrong(&text, "makes it larger than it was said to be"));
                }
                bytes += written;
                file.flush()?;
                file.set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
            }
            EntryType::Symlink => {
                let said = entry.link_name_bytes().and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
                let link = Link {
                    path,
                    target: said.unwrap_or_default(),
                };
                if link.leads_to().is_none() {
                    return Err(wrong(&text, "is a link that leads out"));
                }
                links.push(link);
            }
            other => return Err(wrong(&text, &format!("is neither a file, a directory nor a link ({other:?})"))),
        }
    }
    let linked: BTreeSet<&str> = links.iter().map(|link| link.path.as_str()).collect();
    // Below a link nothing stands: it would stand elsewhere, and a link there lead elsewhere.
    let below = |path: &&RelPath| {
        path.as_str()
            .match_indices('/')
            .any(|(at, _)| linked.contains(&path.as_str()[..at]))
    };
    if let Some(path) = seen.iter().find(below) {
        return Err(io::Error::other(format!("`{path}` is to stand below a link")));
    }
    for link in &links {
        let at = env.join(link.path.as_str());
        fs::create_dir_all(at.parent().unwrap_or(env))?;
        symlink(&link.target, at)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).expect("an encoder"));
        for (kind, path, content) in entries {
            let mut header = Header::new_gnu();
            // As somebody writes it who means harm: the builder would refuse such names.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4777);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            header.set_cksum();
            tar.append(&header, if is_link { &[][..] } else { content.as_bytes() })
                .expect("an entry");
        }
        tar.into_inner().expect("an archive").finish().expect("an archive")
    }

    #[test]
    fn a_malicious_archive_is_refused_and_nothing_is_written_outside() {
        use EntryType::{Block, Directory, Link as Hard, Regular, Symlink};
        type Case<'a> = (&'a [(EntryType, &'a str, &'a str)], &'a str);
        let cases: &[Case<'_>] = &[
            (&[(Regular, "../out", "x")], "not a path"),
            (&[(Regular, "/tmp/rgrid-out", "x")], "not a path"),
            (&[(Regular, "a/../../out", "x")], "not a path"),
            (&[(Symlink, "l", "/etc")], "leads out"),
            (&[(Symlink, "l", "../..")], "leads out"),
            (&[(Symlink, "d/l", "x/../../..")], "leads out"),
            (&[(Symlink, "l", "d"), (Directory, "d", ""), (Regular, "l/x", "x")], "below a link"),
            (&[(Symlink, "d/e/l", "../.."), (Symlink, "d/e/l/m", "../../out")], "below a link"),
            (&[(Symlink, "l", "."), (Regular, "l", "x")], "there twice"),
            (&[(Regular, "a", "x"), (Regular, "a", "y")], "there twice"),
            (&[(Hard, "h", "/etc/passwd")], "neither"),
            (&[(Block, "b", "")], "neither"),
            (&[(Regular, "big", "more than was said")], "larger"),
        ];
        for (entries, expected) in cases {
            let dir = tempfile::tempdir().expect("a directory");
            let env = dir.path().join("in/env");
            fs::create_dir(dir.path().join("in")).expect("a directory");
            let error = unpack(&archive(entries)[..], &env, 10).expect_err("it means harm").to_string();
            assert!(error.contains(expected), "{entries:?}: {error}");
            let outside = fs::read_dir(dir.path())
                .expect("it is there")
                .chain(fs::read_dir(dir.path().join("in")).expect("it is there"));
            let names: Vec<_> = outside.map(|entry| entry.expect("an entry").file_name()).collect();
            assert_eq!(names, ["in", "env"], "{entries:?}");
            assert!(!Path::new("/tmp/rgrid-out").exists());
        }
    }

    #[test]
    fn an_archive_unpacks_to_what_was_packed_and_is_reproducible() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let env = dir.path().join("env");
        let deep = format!("{}/ü", "long".repeat(40));
        fs::create_dir_all(env.join("bin"))?;
        fs::create_dir_all(env.join(&deep))?;
        fs::write(env.join("bin/tool"), "#!/bin/sh\n")?;
        fs::set_permissions(env.join("bin/tool"), Permissions::from_mode(0o555))?;
        fs::write(env.join(&deep).join("module.py"), "")?;
        symlink("bin/tool", env.join("tool"))?;
        symlink("/usr/bin/python3", env.join("bin/python"))?;
        let packed = |name: &str| {
            let to = dir.path().join(name);
            pack(&env, File::create_new(&to)?)?;
            fs::read(to)
        };
        let first = packed("one")?;
        fs::File::options()
            .write(true)
            .open(env.join("bin/tool"))?
            .set_modified(std::time::SystemTime::UNIX_EPOCH)?;
        assert_eq!(packed("two")?, first);
        let back = dir.path().join("back");
        assert_eq!(unpack(&first[..], &back, 10)?, 10);
        assert_eq!(fs::read_to_string(back.join("tool"))?, "#!/bin/sh\n");
        assert_eq!(fs::metadata(back.join("bin/tool"))?.permissions().mode() & 0o7777, 0o755);
        assert!(back.join(&deep).join("module.py").is_file());
        assert!(fs::symlink_metadata(back.join("bin/python")).is_err(), "the machine's own");
        assert!(unpack(&first[..first.len() - 9], &dir.path().join("cut"), 10).is_err());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        /// Damage in the tar itself: under a checksum of zstd, nothing of it would be reached.
        #[test]
        fn a_damaged_archive_writes_nothing_outside_and_no_more_than_it_may(
            noise in vec((any::<Index>(), any::<u8>()), 0..12),
            length in any::<Index>(),
            cut in any::<bool>(),
        ) {
            use EntryType::{Directory, Regular, Symlink};
            let entries = [(Directory, "d", ""), (Regular, "d/file", "0123456789"), (Symlink, "d/link", "file"), (Regular, "top", "abc")];
            let mut tar = zstd::decode_all(&archive(&entries)[..]).expect("an archive");
            for (at, byte) in noise {
                let at = at.index(tar.len());
                tar[at] = byte;
            }
            if cut {
                tar.truncate(length.index(tar.len() + 1));
            }
            // The checksum of each header is made right again, so that what else it says is looked at.
            for header in tar.chunks_exact_mut(512) {
                if header[257..262] == *b"ustar" {
                    header[148..156].fill(b' ');
                    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
                    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
            let dir = tempfile::tempdir().expect("a directory");
            let inside = dir.path().join("in");
            fs::create_dir(&inside).expect("a directory");
            let packed = zstd::encode_all(&tar[..], LEVEL).expect("an archive");
            let result = unpack(&packed[..], &inside.join("env"), 20);
            prop_assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1);
            prop_assert_eq!(fs::read_dir(&inside).expect("it is there").count(), 1);
            let mut bytes = 0;
            for entry in walkdir::WalkDir::new(inside.join("env")) {
                let entry = entry.expect("an entry");
                if entry.file_type().is_file() {
                    bytes += entry.metadata().expect("it is there").len();
                } else if entry.file_type().is_symlink() {
                    let name = entry.path().strip_prefix(inside.join("env")).expect("it is inside");
                    let link = Link {
                        path: name.to_str().expect("UTF-8").parse().expect("a path"),
                        target: fs::read_link(entry.path()).expect("a link").to_str().expect("UTF-8").to_owned(),
                    };
                    prop_assert!(link.leads_to().is_some(), "{link:?}");
                }
            }
            prop_assert!(bytes <= 21, "{bytes} bytes");
            if let Ok(said) = result {
                prop_assert_eq!(said, bytes);
            }
        }
    }
}
