//! What small lists of outputs name, kept in the store, so that a pass need not read each list again: there is one of each attempt.
//!
//! A list never changes, since its name is its content's hash. So what is kept of it is right for whatever log, for ever; but as it is an
//! input to deletion, it must be signed, and of this program ([`super::signed`]). It is a text of one line for each list, in the order of
//! their hashes, and is gone through beside the lists that are wanted, so that it is never in memory but compressed.

use std::{
    io::{BufRead, BufReader, BufWriter, Error, Result, Write},
    iter::Peekable,
};

use bus::{
    ids::{Digest, JobId},
    output::manifest::Manifest,
};
use serde::{Deserialize, Serialize};

/// Where they stand in the store.
pub(super) const NAME: &str = "collector/lists";
/// A list that names more is read each time: it would make the text large.
const SMALL: usize = 8;

/// What a list names: its own hash, pieces of a log, outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed(pub(super) Digest, pub(super) Vec<Digest>, pub(super) Vec<Digest>);

/// A list that is wanted, whether its outputs are kept, and a job that left it.
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
