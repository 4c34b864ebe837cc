//! What an attempt left behind: its output files and its log, as one object in the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    job::ManifestRef,
    spec::{RelPath, is_false, tree::Link},
};

/// The outputs and the log segments of one attempt. `job.finished` names its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// The files that the command made or changed, by path.
    #[serde(default)]
    pub outputs: Vec<OutputFile>,
    /// The symbolic links that the command made, all of which stay inside, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The inputs that are not there any more at the command's end, since it removed or renamed them: files, links and directories, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<RelPath>,
    /// What was there and could not be kept, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Which of the job's output patterns named nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
    /// The log, in order: each segment an object of frames (see [`crate::output::frame`]).
    #[serde(default)]
    pub log: Vec<LogSegment>,
    /// Bytes written to standard output.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    #[serde(default)]
    pub stderr_bytes: u64,
}

/// One output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputFile {
    /// Where it stood in the work directory.
    pub path: RelPath,
    /// The content's SHA-256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
    /// Its permission bits, where they are neither 0644 nor 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// A stretch of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogSegment {
    /// The segment's SHA-256.
    pub sha256: Digest,
    /// Its size in bytes, frame headers included.
    pub size: u64,
}

impl Manifest {
    /// Whether there is nothing in it that is worth storing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing_made = self.outputs.is_empty() && self.links.is_empty() && self.deleted.is_empty();
        nothing_made && self.log.is_empty() && self.left_out.is_empty() && self.unmatched.is_empty()
    }

    /// The manifest as it is stored.
    ///
    /// # Panics
    /// Never: it holds only what JSON can carry.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a manifest holds no map, which is all that could fail")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is JSON")
    }

    /// The reference to this manifest that an event carries, once it is stored under `sha256`.
    #[must_use]
    pub fn reference(&self, sha256: Digest) -> ManifestRef {
        ManifestRef {
            sha256,
            files: self.outputs.len() as u64,
            links: self.links.len() as u64,
            bytes: self.outputs.iter().map(|file| file.size).sum(),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            deleted: self.deleted.len() as u64,
            notes: (self.left_out.len() + self.unmatched.len()) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_an_earlier_version_is_read_and_written_as_it_was() {
        let stored = r#"{"outputs":[],"log":[],"stdout_bytes":0,"stderr_bytes":0}"#;
        let manifest: Manifest = serde_json::from_str(stored).expect("a manifest");
        assert_eq!(String::from_utf8(manifest.to_json()).expect("text"), stored);
        assert!(manifest.is_empty() && !manifest.reference(Digest::of(b"")).has_any());
    }

    #[test]
    fn what_was_removed_and_what_is_to_be_said_counts() {
        let manifest = Manifest {
            deleted: vec!["inbox/x".parse().expect("a path")],
            left_out: vec!["pipe: neither a file nor a directory".to_owned()],
            unmatched: vec!["*.csv".to_owned()],
            ..Manifest::default()
        };
        let reference = manifest.reference(Digest::of(b""));
        assert!(!manifest.is_empty() && reference.has_any());
        assert_eq!((reference.files, reference.deleted, reference.notes), (0, 1, 2));
        let read: Manifest = serde_json::from_slice(&manifest.to_json()).expect("a manifest");
        assert_eq!(read, manifest);
    }
}
