//! The members of a tar archive that somebody else made: in bounded memory, by strict paths, and damaged rather than guessed at.
//!
//! The `tar` crate's own iterator reads a long name or a PAX record of any length into memory, and joins what programs read
//! differently. This one refuses both.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::invalid;

/// The unit that archives are made of, in bytes.
const BLOCK: usize = 512;
/// The longest record that gives a member a long name or a PAX attribute, in bytes.
const RECORD_MAX: u64 = 64 << 10;
/// The longest path of a member, in bytes. Docker's own have 75.
const PATH_MAX: usize = 255;
/// The most members: an image has at most 127 layers, with a few files for each.
const MEMBERS_MAX: usize = 10_000;

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file whose content follows.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to a path, as it stands in the archive.
    Symlink(String),
    /// Anything else: a hard link, a device, a sparse file.
    Other,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Where it stands: names joined by `/`, none of them `.` or `..`.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: Kind,
    /// The size of its content in bytes.
    pub(super) size: u64,
}

/// What extension records say of the member that comes next.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

/// Shows each member of an archive, with a reader of its content, which need not be read. The archive's root itself is not shown.
///
/// # Errors
/// Of kind [`io::ErrorKind::InvalidData`] if a header is damaged, a path is not strict, or there is more than is read; and what
/// `visit` returns.
pub(super) fn visit(mut archive: impl Read, mut visit: impl FnMut(&Member, &mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    let mut extension = Extension::default();
    let mut count = 0;
    while let Some(header) = header(&mut archive)? {
        count += 1;
        if count > MEMBERS_MAX {
            return Err(invalid(format!("it has more than {MEMBERS_MAX} members")));
        }
        let size = extension.size.map_or_else(|| header.entry_size(), Ok)?;
        let mut content = archive.by_ref().take(size);
        match header.entry_type() {
            EntryType::GNULongName => extension.path = Some(text(&mut content)?),
            EntryType::GNULongLink => extension.link = Some(text(&mut content)?),
            EntryType::XHeader => pax(&record(&mut content)?, &mut extension)?,
            EntryType::XGlobalHeader => return Err(invalid("it has a PAX record for all that follows".to_owned())),
            _ => {
                if let Some(member) = member(&header, &std::mem::take(&mut extension), size)? {
                    visit(&member, &mut content)?;
                }
            }
        }
        let rest = content.limit() + size.next_multiple_of(BLOCK as u64).saturating_sub(size);
        skip(&mut archive, rest)?;
    }
    Ok(())
}

/// The next header; nothing at the end.
fn header(archive: &mut impl Read) -> io::Result<Option<Header>> {
    let mut header = Header::new_old();
    archive.read_exact(header.as_mut_bytes())?;
    let bytes = header.as_bytes();
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    // The checksum counts as spaces in itself.
    let counted = |(at, &byte): (usize, &u8)| u32::from(if (148..156).contains(&at) { b' ' } else { byte });
    let sum: u32 = bytes.iter().enumerate().map(counted).sum();
    if header.cksum()? != sum {
        return Err(invalid("a header of it is damaged".to_owned()));
    }
    Ok(Some(header))
}

fn member(header: &Header, extension: &Extension, size: u64) -> io::Result<Option<Member>> {
    let path = extension.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = match header.entry_type() {
        _ if extension.sparse => Kind::Other,
        EntryType::Regular => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let link = extension.link.clone();
            let link = link.or_else(|| Some(header.link_name_bytes()?.into_owned()));
            Kind::Symlink(String::from_utf8_lossy(&link.unwrap_or_default()).into_owned())
        }
        _ => Kind::Other,
    };
    let path = strict(&path, kind == Kind::Directory)?;
    Ok(path.map(|path| Member { path, kind, size }))
}

/// A path that every program reads alike; nothing for the archive's root.
fn strict(path: &[u8], is_directory: bool) -> io::Result<Option<String>> {
    let refused = || invalid(format!("it has the path `{}`", String::from_utf8_lossy(path).escape_debug()));
    let text = std::str::from_utf8(path).map_err(|_| refused())?;
    let text = if is_directory {
        text.strip_suffix('/').unwrap_or(text)
    } else {
        text
    };
    if is_directory && text == "." {
        return Ok(None);
    }
    let text = text.strip_prefix("./").unwrap_or(text);
    let sound = |name: &str| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
    if text.len() > PATH_MAX || text.contains('\\') || !text.split('/').all(sound) {
        return Err(refused());
    }
    Ok(Some(text.to_owned()))
}

/// Where a link in an archive leads to, if that is in the archive.
pub(super) fn target(path: &str, link: &str) -> Option<String> {
    let mut names: Vec<&str> = path.split('/').collect();
    names.pop();
    for name in link.split('/') {
        match name {
            "." => {}
            ".." => drop(names.pop()?),
            "" => return None,
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

/// The attributes of a member, as POSIX has them: `LENGTH KEY=VALUE` and a newline, the length being that of all of it.
fn pax(mut record: &[u8], extension: &mut Extension) -> io::Result<()> {
    let damaged = || invalid("a PAX record of it is damaged".to_owned());
    while !record.is_empty() {
        let space = record.iter().position(|&byte| byte == b' ').ok_or_else(damaged)?;
        let digits = std::str::from_utf8(&record[..space]).map_err(|_| damaged())?;
        let length: usize = digits.parse().map_err(|_| damaged())?;
        let line = record.get(space + 1..length).ok_or_else(damaged)?;
        let line = line.strip_suffix(b"\n").ok_or_else(damaged)?;
        let equals = line.iter().position(|&byte| byte == b'=').ok_or_else(damaged)?;
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        match key {
            b"path" => extension.path = Some(value.to_vec()),
            b"linkpath" => extension.link = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                extension.size = Some(size.ok_or_else(damaged)?);
            }
            key if key.starts_with(b"GNU.sparse.") => extension.sparse = true,
            _ => {}
        }
        record = &record[length..];
    }
    Ok(())
}

fn record(content: &mut io::Take<impl Read>) -> io::Result<Vec<u8>> {
    if content.limit() > RECORD_MAX {
        return Err(invalid(format!("a record of it is longer than {RECORD_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A name of GNU's, which a zero ends.
fn text(content: &mut io::Take<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = record(content)?;
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}

fn skip(archive: &mut impl Read, bytes: u64) -> io::Result<()> {
    if io::copy(&mut archive.take(bytes), &mut io::sink())? < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
