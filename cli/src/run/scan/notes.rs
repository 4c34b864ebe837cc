//! What is here and was not sent, as the user reads it before the job runs.

use std::path::Path;

use super::{
    finder::Finder,
    found::{Bounds, Note},
    is_source,
    secret::is_named_as_secret,
    skipped::is_repository_metadata,
};
use crate::output::size;

/// The most notes; more would be read by nobody.
const MOST_NOTES: usize = 10;

impl Finder<'_> {
    fn note(&mut self, path: &Path, text: String) {
        if self.noted.insert(path.to_owned()) && self.found.notes.len() < MOST_NOTES {
            self.found.notes.push(Note {
                path: path.to_owned(),
                text,
            });
        }
    }

    /// Names what looks like a secret, which is not sent. A link counts by its own name and by what it leads to.
    pub(crate) fn held_back(&mut self, path: &Path, real: &Path, by: &Path) -> bool {
        let is_named = |path: &Path| !is_source(path) && is_named_as_secret(path);
        let found = is_named(path) || is_named(real) || self.holds_secret(real);
        if found {
            let (shown, by) = (self.shown(path), self.shown(by));
            let quoted = shell_words::quote(&shown).into_owned();
            self.note(
                path,
                format!(
                    "{shown}, which {by} names, looks like a secret and was not sent; send it with --include {quoted}, or hide this message with --exclude {quoted}"
                ),
            );
        }
        found
    }

    pub(crate) fn note_outside(&mut self, path: &Path, by: &Path) {
        let what = if self.scope.holds(path) {
            "is a link that leads out of the project"
        } else {
            "lies outside of the project"
        };
        self.note_not_sent(path, what, by);
    }

    /// What is the user's own, or git's.
    pub(crate) fn note_home(&mut self, path: &Path, by: &Path) {
        let what = if is_repository_metadata(path) {
            "belongs to the repository's metadata"
        } else {
            "is in your home directory"
        };
        self.note_not_sent(path, what, by);
    }

    fn note_not_sent(&mut self, path: &Path, what: &str, by: &Path) {
        let (shown, by) = (self.shown(path), self.shown(by));
        let shown = if shown.is_empty() { ".".to_owned() } else { shown };
        let quoted = shell_words::quote(&shown).into_owned();
        self.note(
            path,
            format!("{shown}, which {by} names, {what} and was not sent; send it with --include {quoted}"),
        );
    }

    /// What does not fit the bounds.
    pub(crate) fn note_bound(&mut self, path: &Path, what: &str, by: &Path) {
        let (shown, by) = (self.shown(path), self.shown(by));
        let shown = if shown.is_empty() { ".".to_owned() } else { shown };
        let Bounds { files, bytes } = self.bounds;
        let quoted = shell_words::quote(&shown).into_owned();
        let text = format!(
            "{shown} ({what}), which {by} names, was not sent: the scan adds at most {files} files and {}; send it with --include {quoted}, or raise the limits with --scan-files and --scan-bytes",
            size(bytes)
        );
        self.note(path, text);
    }
}
