//! The record of saved outputs: it tells an unmodified output of an earlier job from a file of the user.

use std::{
    collections::HashMap,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bus::ids::Digest;
use serde::{Deserialize, Serialize};

use super::state;

/// From so many bytes on, a record is written anew, with the last word on each path.
const BOUND: u64 = 8 << 20;
/// What is kept then of those that were saved last, in bytes, and what a line takes up in addition to its path.
const KEPT: usize = 4 << 20;
const LINE: usize = 120;

/// One output that was saved, or a path at which nothing of a job's stands alone any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordEntry {
    path: String,
    /// What identifies its content; nothing: what stands there is the user's.
    #[serde(default)]
    content: Option<Digest>,
}

impl RecordEntry {
    /// What a job made there.
    pub(crate) const fn made(path: String, content: Digest) -> Self {
        Self {
            path,
            content: Some(content),
        }
    }

    /// What a job made of the user's own file.
    pub(crate) const fn updated(path: String) -> Self {
        Self { path, content: None }
    }
}

/// The record of one directory, read when it is first needed.
#[derive(Debug)]
pub(crate) struct Record {
    file: Option<PathBuf>,
    known: OnceLock<HashMap<String, Option<Digest>>>,
}

impl Record {
    /// Of a directory in which outputs are saved.
    pub(crate) fn of(dir: &Path) -> Self {
        let real = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let named = |real: PathBuf| format!("{}.jsonl", &Digest::of(real.as_os_str().as_bytes()).to_string()[..32]);
        let file = state::dir().zip(real.canonicalize().ok());
        Self {
            file: file.map(|(state, real)| state.join("saved").join(named(real))),
            known: OnceLock::new(),
        }
    }

    /// What a job made and left at a path; nothing where what stands there is not known to be a job's alone.
    pub(crate) fn made(&self, path: &str) -> Option<Digest> {
        let known = self.known.get_or_init(|| {
            let lines: Vec<RecordEntry> = self.file.as_deref().map(state::lines).unwrap_or_default();
            lines.into_iter().map(|saved| (saved.path, saved.content)).collect()
        });
        *known.get(path)?
    }

    /// Remembers what was saved. Where that fails, later jobs keep more than they must.
    pub(crate) fn add(&self, saved: &[RecordEntry]) {
        if let Some(file) = &self.file {
            let _not_remembered = state::append(file, saved, BOUND, shrunk);
        }
    }
}

/// The last word on each path, of the paths that were saved last.
fn shrunk(text: &[u8]) -> Vec<u8> {
    let lines: Vec<RecordEntry> = state::parse(text);
    let mut seen = std::collections::HashSet::new();
    let mut size = 0;
    let last = lines.iter().rev().filter(|saved| seen.insert(&saved.path));
    let mut kept: Vec<&RecordEntry> = last
        .take_while(|saved| {
            size += saved.path.len() + LINE;
            size <= KEPT
        })
        .collect();
    kept.reverse();
    let mut text = Vec::new();
    for saved in kept {
        if serde_json::to_writer(&mut text, saved).is_ok() {
            text.push(b'\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn record(file: &Path) -> Record {
        Record {
            file: Some(file.to_owned()),
            known: OnceLock::new(),
        }
    }

    #[test]
    fn the_last_word_on_a_path_counts_and_garbage_does_not() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("saved/x.jsonl");
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(record(&file).made("a"), None);
        record(&file).add(&[RecordEntry::made("a".into(), one), RecordEntry::made("b\n\"c".into(), one)]);
        fs::File::options()
            .append(true)
            .open(&file)?
            .write_all(b"\xff{\"path\":\"a\",\"cont")?;
        record(&file).add(&[RecordEntry::made("a".into(), two)]);
        let known = record(&file);
        assert_eq!(
            (known.made("a"), known.made("b\n\"c"), known.made("c")),
            (Some(two), Some(one), None)
        );
        record(&file).add(&[RecordEntry::updated("a".into())]);
        assert_eq!(record(&file).made("a"), None, "it is the user's again");
        Ok(())
    }

    /// Writes so many lines in each of ten rounds, from four threads.
    fn written_at_once(file: &Path, lines: usize) {
        let digest = Digest::of(b"1");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..10 {
                        let many = (0..lines).map(|n| RecordEntry::made(name(thread, round, n), digest));
                        record(file).add(&many.collect::<Vec<_>>());
                    }
                });
            }
        });
    }

    fn name(thread: usize, round: usize, line: usize) -> String {
        format!("{thread}/{round}/{line}/{}", "x".repeat(100))
    }

    #[test]
    fn several_may_write_to_a_record_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.jsonl");
        written_at_once(&file, 10);
        let known = record(&file);
        let all = (0..400).filter(|n| known.made(&name(n / 100, n / 10 % 10, n % 10)).is_some());
        assert_eq!(all.count(), 400);
    }

    #[test]
    fn a_record_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.jsonl");
        written_at_once(&file, 2_500);
        let size = fs::metadata(&file).expect("it is there").len();
        assert!(size <= BOUND, "{size}");
        let known = record(&file);
        // Whichever thread was the last.
        assert!((0..4).any(|thread| known.made(&name(thread, 9, 2_499)).is_some()));
    }
}
