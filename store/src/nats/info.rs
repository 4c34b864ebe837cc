//! The metadata of an object (ADR-20), with the stream sequences of its chunks.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bus::ids::Digest;
use chrono::{DateTime, Utc};
use object_store::{ObjectMeta, path::Path};
use serde::{Deserialize, Serialize};

/// The metadata key under which [`places`](ObjectInfo::places) are kept. Other clients keep it unchanged.
const PLACES: &str = "rgrid-chunks";

/// The longest list of sequences that is stored, in bytes. For a longer one (in the worst case 16 GiB of content), ranges are found by reading
/// from the start.
const PLACES_LEN_MAX: usize = 64 * 1024;

/// The metadata of one object.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ObjectInfo {
    pub(super) name: String,
    pub(super) bucket: String,
    /// The id of this version of the object, and of the subject of its chunks.
    #[serde(default)]
    pub(super) nuid: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) chunks: usize,
    #[serde(default, rename = "mtime")]
    pub(super) modified: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) options: Option<Options>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_chunk_size: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<serde_json::Value>,
}

impl ObjectInfo {
    pub(super) fn is_link(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.link.is_some())
    }

    /// The SHA-256 of the content, if the writer gave one.
    pub(super) fn digest(&self) -> Option<Digest> {
        let bytes = URL_SAFE.decode(self.digest.as_ref()?.strip_prefix("SHA-256=")?).ok()?;
        hex::encode(bytes).parse().ok()
    }

    pub(super) fn digest_text(digest: &Digest) -> String {
        format!("SHA-256={}", URL_SAFE.encode(digest.as_bytes()))
    }

    /// The stream sequences of the chunks in order, and the size of each but the last, if the writer was this module.
    pub(super) fn places(&self) -> Option<(usize, Vec<u64>)> {
        let places = decode(self.metadata.as_ref()?.get(PLACES)?)?;
        let chunk_size = self.options.as_ref()?.max_chunk_size.filter(|size| *size > 0)?;
        let fits = places.len() == self.chunks && self.size.div_ceil(chunk_size as u64) == self.chunks as u64;
        fits.then_some((chunk_size, places))
    }

    pub(super) fn set_places(&mut self, sequences: &[u64]) {
        let text = encode(sequences);
        if text.len() <= PLACES_LEN_MAX {
            self.metadata.get_or_insert_default().insert(PLACES.to_owned(), text);
        }
    }

    pub(super) fn meta(&self, location: Path) -> ObjectMeta {
        ObjectMeta {
            location,
            last_modified: self.modified.unwrap_or_default(),
            size: self.size,
            e_tag: Some(self.nuid.clone()),
            version: None,
        }
    }
}

/// Runs of neighbouring sequences: `17+63,90+1` is 17 to 79 and 90.
fn encode(sequences: &[u64]) -> String {
    sequences
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| format!("{}+{}", run[0], run.len()))
        .collect::<Vec<_>>()
        .join(",")
}

fn decode(text: &str) -> Option<Vec<u64>> {
    let mut sequences = Vec::new();
    for run in text.split(',').filter(|run| !run.is_empty()) {
        let (first, count) = run.split_once('+')?;
        let (first, count) = (first.parse::<u64>().ok()?, count.parse::<u32>().ok()?);
        sequences.extend(first..first.checked_add(u64::from(count))?);
    }
    Some(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_their_text() {
        for sequences in [vec![], vec![7], vec![7, 8, 9], vec![1, 3, 4, 5, 9, 11]] {
            assert_eq!(decode(&encode(&sequences)), Some(sequences));
        }
        assert_eq!(encode(&[1, 3, 4, 5, 9]), "1+1,3+3,9+1");
        assert_eq!(decode("5"), None);
    }

    #[test]
    fn places_that_do_not_fit_the_object_are_not_used() {
        let mut info = ObjectInfo {
            size: 25,
            chunks: 3,
            options: Some(Options {
                max_chunk_size: Some(10),
                link: None,
            }),
            ..ObjectInfo::default()
        };
        assert_eq!(info.places(), None);
        info.set_places(&[4, 5, 6]);
        assert_eq!(info.places(), Some((10, vec![4, 5, 6])));
        info.size = 31;
        assert_eq!(info.places(), None);
    }
}
