//! Manifests: what an attempt left behind, its output files and its log, as one object in the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    job::ManifestRef,
    spec::{RelPath, is_false, tree::Link},
};

/// The outputs and the log segments of one attempt. `job.finished` names the manifest's SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// The files that the command created or changed, by path.
    #[serde(default)]
    pub outputs: Vec<OutputFile>,
    /// The symbolic links that the command created, by path. All of them lead to a path inside the work directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The inputs that the command removed or renamed, by path: files, links and directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<RelPath>,
    /// Files that could not be kept, with the reason: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The output patterns that matched nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
    /// The log, in order. Each segment is an object of frames (see [`crate::output::frame`]).
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
    /// The file's path in the work directory.
    pub path: RelPath,
    /// The content's SHA-256.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// Whether the file is executable.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
    /// The permission bits, if they are neither 0644 nor 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// A segment of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogSegment {
    /// The segment's SHA-256.
    pub sha256: Digest,
    /// The segment's size in bytes, with the headers of frames.
    pub size: u64,
}

impl Manifest {
    /// Whether the manifest has no content worth storing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing_made = self.outputs.is_empty() && self.links.is_empty() && self.deleted.is_empty();
        nothing_made && self.log.is_empty() && self.left_out.is_empty() && self.unmatched.is_empty()
    }

    /// The manifest as it is stored.
    ///
    /// # Panics
    /// Never: every field can be written as JSON.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a manifest has no map, and only map keys can fail")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is JSON")
    }

    /// The reference to this manifest, which is stored under `sha256`.
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
    fn a_manifest_of_an_earlier_version_is_read_and_written_unchanged() {
        let stored = r#"{"outputs":[],"log":[],"stdout_bytes":0,"stderr_bytes":0}"#;
        let manifest: Manifest = serde_json::from_str(stored).expect("a manifest");
        assert_eq!(String::from_utf8(manifest.to_json()).expect("text"), stored);
        assert!(manifest.is_empty() && !manifest.reference(Digest::of(b"")).has_any());
    }

    #[test]
    fn deleted_inputs_and_notes_count() {
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
