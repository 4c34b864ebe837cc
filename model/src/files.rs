//! Contents, and the outputs of jobs.

use std::collections::BTreeMap;

use bus::{
    ids::{Attempt, Digest},
    job::State,
    output::manifest::OutputFile,
    spec::{RelPath, tree::Link},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use url::Url;

/// The output files of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Artifacts {
    /// The attempt that they were committed by; none where none was.
    pub attempt: Option<Attempt>,
    /// The files, by path.
    pub artifacts: Vec<ArtifactView>,
    /// Symbolic links, by path; each stays inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The inputs that the job removed or renamed, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<RelPath>,
    /// What was there and could not be kept, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Which of the job's output patterns named nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
    /// Where the job stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Until when the files are kept; none: for ever. Their list stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether that time is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// One output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Where it stood in the work directory.
    pub path: RelPath,
    /// The content's SHA-256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default)]
    pub executable: bool,
    /// Its permission bits, where they are neither 0644 nor 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

impl From<OutputFile> for ArtifactView {
    fn from(file: OutputFile) -> Self {
        Self {
            path: file.path,
            sha256: file.sha256,
            size: file.size,
            executable: file.executable,
            mode: file.mode,
        }
    }
}

/// Hashes of contents: those that are asked for in a request to `/v1/files/missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// The contents' SHA-256s.
    pub sha256: Vec<Digest>,
    /// Their sizes in bytes, in the same order: with them, the answer says how those that are missing can be stored without the API, and
    /// how far they have come already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<u64>,
}

/// The header that says how many of a content's bytes came before the body of a `PUT`. Its name is that of the IETF's
/// draft-ietf-httpbis-resumable-upload, which has methods of its own besides.
pub const UPLOAD_OFFSET: &str = "upload-offset";

/// Contents that are not in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Their SHA-256s.
    pub missing: Vec<Digest>,
    /// How some of those can be stored without the API, each by one `PUT`; the others are sent to `PUT /v1/files/{sha256}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uploads: BTreeMap<Digest, SignedUpload>,
    /// Of some of those whose sizes were told, how many bytes wait for the rest: a `PUT` with `Upload-Offset` sends it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub begun: BTreeMap<Digest, u64>,
    /// Those of told sizes that somebody is sending, or was a moment ago: ask again soon how far they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arriving: Vec<Digest>,
}

/// A request that stores one content in the store itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUpload {
    /// Where to.
    pub url: Url,
    /// The headers that it must carry, exactly so: they are signed.
    pub headers: BTreeMap<String, String>,
    /// Until when it may begin.
    pub expires_at: DateTime<Utc>,
}
