//! The cache of manifests: the contents that small manifests name, saved in the store, so that a pass does not read every manifest again.
//!
//! A manifest never changes, since its name is the hash of its content, so the cache is valid for every log. Deletion depends on it, so it
//! must be signed, and written by this version of the program ([`super::signed`]). It is a text with one line for each manifest, in the order
//! of their hashes, which is merged with the wanted manifests, so that only its compressed form is in memory.

use std::{
    io::{BufRead, BufReader, BufWriter, Error, Result, Write},
    iter::Peekable,
};

use bus::{
    ids::{Digest, JobId},
    output::manifest::Manifest,
};
use serde::{Deserialize, Serialize};

/// Its name in the store.
pub(super) const NAME: &str = "collector/lists";
/// A manifest that names more contents is not cached.
const SMALL: usize = 8;

/// A manifest in the cache: its hash, the segments of the log, the outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed(pub(super) Digest, pub(super) Vec<Digest>, pub(super) Vec<Digest>);

/// A wanted manifest, whether its outputs are kept, and its job.
pub(super) type Wanted = (Digest, bool, JobId);

impl Listed {
    pub(super) fn of(list: Digest, manifest: &Manifest) -> Self {
        let log = manifest.log.iter().map(|segment| segment.sha256);
        let outputs = manifest.outputs.iter().map(|file| file.sha256);
        Self(list, log.collect(), outputs.collect())
    }

    const fn is_small(&self) -> bool {
        self.1.len() + self.2.len() <= SMALL
    }
}

/// The lists of a text, in order.
pub(super) struct Lines<'a>(BufReader<zstd::stream::read::Decoder<'static, BufReader<&'a [u8]>>>);

impl<'a> Lines<'a> {
    pub(super) fn of(packed: &'a [u8]) -> Result<Self> {
        Ok(Self(BufReader::new(zstd::stream::read::Decoder::new(packed)?)))
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_slice(&line).map_err(Error::from)),
            Err(error) => Some(Err(error)),
        }
    }
}

/// A text that is being written, from lists in order.
pub(super) struct Text(BufWriter<zstd::stream::write::Encoder<'static, Vec<u8>>>);

impl Text {
    pub(super) fn begin() -> Result<Self> {
        Ok(Self(BufWriter::new(zstd::stream::write::Encoder::new(Vec::new(), 1)?)))
    }

    /// Adds a list, if it is small.
    pub(super) fn add(&mut self, listed: &Listed) -> Result<()> {
        if listed.is_small() {
            serde_json::to_writer(&mut self.0, listed)?;
            self.0.write_all(b"\n")?;
        }
        Ok(())
    }

    pub(super) fn end(self) -> Result<Vec<u8>> {
        self.0.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
    }
}

/// Hands on each of the wanted lists that is known, with whether its outputs are kept; returns those that are not known. Both are in order.
pub(super) fn known(
    wanted: &[Wanted],
    lines: impl Iterator<Item = Result<Listed>>,
    mut take: impl FnMut(Listed, bool),
) -> Result<Vec<Wanted>> {
    let (mut lines, mut unknown) = (lines.peekable(), Vec::new());
    for one in wanted {
        match find(&mut lines, &one.0)? {
            Some(listed) => take(listed, one.1),
            None => unknown.push(*one),
        }
    }
    Ok(unknown)
}

/// The list of this hash, if it is the next one but for those before it.
fn find(lines: &mut Peekable<impl Iterator<Item = Result<Listed>>>, wanted: &Digest) -> Result<Option<Listed>> {
    while let Some(next) = lines.next_if(|next| !matches!(next, Ok(listed) if listed.0 > *wanted)) {
        let listed = next?;
        if listed.0 == *wanted {
            return Ok(Some(listed));
        }
    }
    Ok(None)
}

/// Two texts as one, in order.
pub(super) fn merged(first: &[u8], second: &[u8]) -> Result<Vec<u8>> {
    let (mut first, mut second) = (Lines::of(first)?.peekable(), Lines::of(second)?.peekable());
    let mut text = Text::begin()?;
    loop {
        let from_first = match (first.peek(), second.peek()) {
            (Some(Ok(first)), Some(Ok(second))) => first.0 <= second.0,
            (first, _) => first.is_some(),
        };
        let next = if from_first { first.next() } else { second.next() };
        match next {
            Some(listed) => text.add(&listed?)?,
            None => return text.end(),
        }
    }
}

#[cfg(test)]
mod tests;
