//! An image's archive, as `docker save` writes it, made anew before Docker sees it: of somebody else's only the files that the
//! image is made of, under names of ours, and no name of an image at all. Loading the archive itself would give each name in it a new
//! meaning, by whichever of its lists the daemon reads, and daemons read paths, links and records in more ways than can be foreseen.

mod members;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufReader, Cursor, Read, Write},
};

use bus::ids::Digest;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use self::members::{Kind, Member};

/// The longest `manifest.json`, and the longest configuration of an image, in bytes.
const LIST_MAX: u64 = 4 << 20;
/// The list of an archive's images.
const MANIFEST: &str = "manifest.json";
/// The most layers of an image: more than Docker mounts.
const LAYERS_MAX: usize = 500;

/// One image in `manifest.json`, as `docker save` writes it. Its names are of no interest.
#[derive(Debug, Clone, Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

/// What an archive was found to hold.
#[derive(Debug)]
pub struct Survey {
    images: Vec<Saved>,
    /// By path.
    members: HashMap<String, Entry>,
}

/// The member of an archive at a path that is not a directory.
#[derive(Debug)]
enum Entry {
    /// A file; with the hash of one that is short enough to be a configuration.
    File(Option<Digest>),
    /// A symbolic link.
    Link(String),
    /// What no image needs.
    Other,
}

/// The files of one image in an archive, and what they are called in the one that Docker gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    id: String,
    /// By their paths in the archive.
    names: BTreeMap<String, String>,
    manifest: String,
}

impl Survey {
    /// Reads an archive through. What it holds may come to `bytes_max` bytes, where layers that are compressed count unpacked.
    ///
    /// # Errors
    /// If it cannot be read; of kind [`io::ErrorKind::InvalidData`] if it is no such archive.
    pub fn of(archive: impl Read, bytes_max: u64) -> io::Result<Self> {
        let (mut found, mut left, mut listed) = (HashMap::new(), bytes_max, None);
        members::visit(archive, |member, content| {
            let entry = match &member.kind {
                Kind::Directory => return Ok(()),
                Kind::Other => Entry::Other,
                Kind::Symlink(link) => Entry::Link(link.clone()),
                Kind::File => Entry::File(look(member, content, &mut left, &mut listed)?),
            };
            match found.insert(member.path.clone(), entry) {
                None => Ok(()),
                Some(_) => Err(invalid(format!("it holds `{}` twice", member.path.escape_debug()))),
            }
        })?;
        let listed = listed.ok_or_else(|| invalid(format!("it has no {MANIFEST}: `docker save` writes one")))?;
        let images = serde_json::from_slice(&listed).map_err(|error| invalid(format!("its {MANIFEST} cannot be read: {error}")))?;
        Ok(Self { images, members: found })
    }

    /// The ids of its images (`sha256:…`): the hashes of their configurations.
    ///
    /// # Errors
    /// If a configuration is not there.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        self.images.iter().map(|image| self.id(image)).collect()
    }

    /// What to do for the image of this id.
    ///
    /// # Errors
    /// Of kind [`io::ErrorKind::InvalidData`] if it is not there, or not whole.
    pub fn plan(&self, id: &str) -> io::Result<Plan> {
        for image in &self.images {
            if self.id(image)? == id {
                return self.plan_of(image, id);
            }
        }
        Err(invalid("it does not hold that image".to_owned()))
    }

    fn id(&self, image: &Saved) -> io::Result<String> {
        let (_, sha256) = self.file(&image.config)?;
        let sha256 = sha256.ok_or_else(|| invalid(format!("its image's configuration is longer than {LIST_MAX} bytes")))?;
        Ok(format!("sha256:{sha256}"))
    }

    fn plan_of(&self, image: &Saved, id: &str) -> io::Result<Plan> {
        let (config, _) = self.file(&image.config)?;
        let mut names = BTreeMap::from([(config.clone(), "config.json".to_owned())]);
        let layers = image.layers.as_deref().unwrap_or_default();
        if layers.len() > LAYERS_MAX {
            return Err(invalid(format!("its image has more than {LAYERS_MAX} layers")));
        }
        let mut renamed = Vec::with_capacity(layers.len());
        for layer in layers {
            let (path, _) = self.file(layer)?;
            let next = format!("layer-{}.tar", names.len());
            let name = names.entry(path).or_insert(next);
            renamed.push(name.clone());
        }
        let manifest = json!([{ "Config": names[&config], "RepoTags": null, "Layers": renamed }]).to_string();
        Ok(Plan {
            id: id.to_owned(),
            names,
            manifest,
        })
    }

    /// The file at a path, or the one that a link there leads to, as `docker save` writes one for a layer that it wrote already.
    fn file(&self, path: &str) -> io::Result<(String, Option<&Digest>)> {
        let place = match self.members.get(path) {
            Some(Entry::Link(link)) => members::target(path, link),
            _ => Some(path.to_owned()),
        };
        let found = place.and_then(|place| match self.members.get(&place)? {
            Entry::File(sha256) => Some((place, sha256.as_ref())),
            Entry::Link(_) | Entry::Other => None,
        });
        found.ok_or_else(|| invalid(format!("it lacks the file `{}`, which its {MANIFEST} names", path.escape_debug())))
    }
}

impl Plan {
    /// The image's id (`sha256:…`): the hash of its configuration.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes the archive for Docker, from the one that was surveyed. Nothing of that is kept in memory.
    ///
    /// # Errors
    /// If one cannot be read, or the other not written.
    pub fn write(&self, archive: impl Read, out: impl Write) -> io::Result<()> {
        let mut out = Builder::new(out);
        append(&mut out, MANIFEST, self.manifest.len() as u64, self.manifest.as_bytes())?;
        let mut missing = self.names.len();
        members::visit(archive, |member, content| {
            if let (Kind::File, Some(name)) = (&member.kind, self.names.get(&member.path)) {
                missing = missing.saturating_sub(1);
                append(&mut out, name, member.size, content)?;
            }
            Ok(())
        })?;
        if missing > 0 {
            return Err(invalid("it changed while it was read".to_owned()));
        }
        out.into_inner()?.flush()
    }
}

fn append(out: &mut Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_path(name)?;
    header.set_cksum();
    out.append(&header, content.take(size))
}

/// Reads a file of an archive through: for its hash, and for what it comes to.
fn look(member: &Member, content: &mut dyn Read, left: &mut u64, listed: &mut Option<Vec<u8>>) -> io::Result<Option<Digest>> {
    if member.size > *left {
        return Err(too_much());
    }
    if member.size > LIST_MAX {
        if member.path == MANIFEST {
            return Err(invalid(format!("its {MANIFEST} is longer than {LIST_MAX} bytes")));
        }
        *left -= unpacked(content, *left)?.max(member.size);
        return Ok(None);
    }
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < member.size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *left -= unpacked(&bytes[..], *left)?.max(member.size);
    let mut hasher = Sha256::new();
    hasher.update(&bytes);
    if member.path == MANIFEST {
        *listed = Some(bytes);
    }
    Ok(Some(Digest::finish(hasher)))
}

/// What Docker makes of a file, in bytes: it unpacks layers by their first bytes.
///
/// # Errors
/// If that is more than `left`.
fn unpacked(mut content: impl Read, left: u64) -> io::Result<u64> {
    let mut first = Vec::new();
    content.by_ref().take(6).read_to_end(&mut first)?;
    let whole = BufReader::new(Cursor::new(first.clone()).chain(content));
    let bytes = match first[..] {
        [0x1f, 0x8b, ..] => count(flate2::bufread::MultiGzDecoder::new(whole), left)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => count(zstd::Decoder::with_buffer(whole)?, left)?,
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            return Err(invalid(
                "a file of it is compressed in a way that images are not (bzip2, xz)".to_owned(),
            ));
        }
        _ => 0,
    };
    if bytes > left { Err(too_much()) } else { Ok(bytes) }
}

fn count(unpacked: impl Read, left: u64) -> io::Result<u64> {
    let damaged = |error: io::Error| match error.kind() {
        io::ErrorKind::Interrupted => error,
        _ => invalid(format!("a compressed file of it is damaged: {error}")),
    };
    io::copy(&mut unpacked.take(left.saturating_add(1)), &mut io::sink()).map_err(damaged)
}

fn too_much() -> io::Error {
    invalid("it holds far more than was announced".to_owned())
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}
