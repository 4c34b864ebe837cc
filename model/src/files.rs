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
    /// The attempt that committed them, if there is one.
    pub attempt: Option<Attempt>,
    /// The files, by path.
    pub artifacts: Vec<ArtifactView>,
    /// Symbolic links, by path; each points inside the work directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The inputs that the job removed or renamed, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<RelPath>,
    /// Files that could not be kept, a sentence for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The output patterns of the job that matched no file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
    /// The state of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Until when the files are kept; none: permanently. Their list is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether that time has passed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// One output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Its path in the work directory.
    pub path: RelPath,
    /// The content's SHA-256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is executable.
    #[serde(default)]
    pub executable: bool,
    /// Its permission bits, if they are neither 0644 nor 0755.
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

/// The body of `POST /v1/files/missing`: the contents to look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// The contents' SHA-256s.
    pub sha256: Vec<Digest>,
    /// Their sizes in bytes, in the same order. With them, the answer says how missing contents can be uploaded to the store directly, and
    /// which uploads can be resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<u64>,
}

/// The header with the number of bytes of a content that arrived before the body of a `PUT`. The name is that of the IETF's
/// draft-ietf-httpbis-resumable-upload, whose other parts are not used.
pub const UPLOAD_OFFSET: &str = "upload-offset";

/// Contents that are not in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Their SHA-256s.
    pub missing: Vec<Digest>,
    /// How some of them can be uploaded to the store directly, each with one `PUT`; the others are sent to `PUT /v1/files/{sha256}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uploads: BTreeMap<Digest, SignedUpload>,
    /// Partial uploads of contents whose sizes were given, and how many bytes have arrived: a `PUT` with `Upload-Offset` sends the rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub begun: BTreeMap<Digest, u64>,
    /// Contents whose sizes were given and that are arriving now: ask again soon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arriving: Vec<Digest>,
}

/// A presigned request that uploads one content to the store directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUpload {
    /// The URL.
    pub url: Url,
    /// The headers that it must carry, unchanged: they are signed.
    pub headers: BTreeMap<String, String>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
}
