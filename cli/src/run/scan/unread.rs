//! A file that is to be read, and its content by what reads it.

use std::path::{Path, PathBuf};

use super::{code::Source, language::Language, regular};

/// A larger file is not a source that somebody wrote, in bytes.
pub(super) const LARGEST_SOURCE: u64 = 1 << 20;
/// A larger file is no configuration, in bytes.
const LARGEST_TEXT: u64 = 256 << 10;

/// Whether a program made it, such as a bundle: its names are no longer those that somebody wrote.
fn is_made(path: &Path, bytes: &[u8]) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let lines = memchr::memchr_iter(b'\n', bytes).count() + 1;
    name.contains(".min.") || (bytes.len() > 50_000 && bytes.len() / lines > 1_000)
}

/// A file that is to be read.
pub(super) struct Unread {
    pub(super) path: PathBuf,
    /// The language that it is written in, where something else than the file says so.
    pub(super) language: Option<Language>,
    /// Whether it is the script itself, which is read also where it is long.
    pub(super) is_script: bool,
}

impl Unread {
    /// Reads it. Nothing where it is no text that somebody wrote.
    pub(super) fn read(&self) -> Option<Content> {
        let bytes = regular::read(&self.path, LARGEST_SOURCE)?;
        if bytes.iter().take(4096).any(|byte| *byte == 0) || is_made(&self.path, &bytes) {
            return None;
        }
        let size = bytes.len() as u64;
        let text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let text = text.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(text);
        let first_line: String = text.lines().next().unwrap_or_default().chars().take(256).collect();
        match self.language.unwrap_or_else(|| Language::of(&self.path, &first_line)) {
            Language::Shell => Some(Content::Shell(text)),
            Language::Text => (self.is_script || size <= LARGEST_TEXT).then_some(Content::Text(text)),
            language => Some(Content::Code(Source::of(&text, language))),
        }
    }
}

/// What a file holds, by what reads it.
pub(super) enum Content {
    Code(Source),
    Shell(String),
    Text(String),
}
