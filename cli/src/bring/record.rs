//! Which outputs were saved where: by it, an unmodified output of an earlier job is told from a file of the user's.

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
/// The paths that are kept then: those that were saved last.
const PATHS: usize = 30_000;

/// One output that was saved, or a path at which nothing of a job's stands alone any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    path: String,
    /// What identifies its content; nothing: what stands there is the user's.
    #[serde(default)]
    content: Option<Digest>,
}

impl Saved {
    /// What a job made there.
    pub(super) const fn made(path: String, content: Digest) -> Self {
        Self {
            path,
            content: Some(content),
        }
    }

    /// What a job made of the user's own file.
    pub(super) const fn updated(path: String) -> Self {
        Self { path, content: None }
    }
}

/// The record of one directory, read when it is first needed.
#[derive(Debug)]
pub(super) struct Record {
    file: Option<PathBuf>,
    known: OnceLock<HashMap<String, Option<Digest>>>,
}

impl Record {
    /// Of a directory in which outputs are saved.
    pub(super) fn of(dir: &Path) -> Self {
        let real = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let named = |real: PathBuf| format!("{}.jsonl", &Digest::of(real.as_os_str().as_bytes()).to_string()[..32]);
        let file = state::dir().zip(real.canonicalize().ok());
        Self {
            file: file.map(|(state, real)| state.join("saved").join(named(real))),
            known: OnceLock::new(),
        }
    }

    /// What a job made and left at a path; nothing where what stands there is not known to be a job's alone.
    pub(super) fn made(&self, path: &str) -> Option<Digest> {
        let known = self.known.get_or_init(|| {
            let lines: Vec<Saved> = self.file.as_deref().map(state::lines).unwrap_or_default();
            lines.into_iter().map(|saved| (saved.path, saved.content)).collect()
        });
        *known.get(path)?
    }

    /// Remembers what was saved. Where that fails, later jobs keep more than they must.
    pub(super) fn add(&self, saved: &[Saved]) {
        if let Some(file) = &self.file {
            let _not_remembered = state::append(file, saved, BOUND, shrunk);
        }
    }
}

/// The last word on each path, of the paths that were saved last.
fn shrunk(text: &[u8]) -> Vec<u8> {
    let lines: Vec<Saved> = state::parse(text);
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<&Saved> = lines.iter().rev().filter(|saved| seen.insert(&saved.path)).take(PATHS).collect();
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
        record(&file).add(&[Saved::made("a".into(), one), Saved::made("b\n\"c".into(), one)]);
        fs::File::options()
            .append(true)
            .open(&file)?
            .write_all(b"\xff{\"path\":\"a\",\"cont")?;
        record(&file).add(&[Saved::made("a".into(), two)]);
        let known = record(&file);
        assert_eq!(
            (known.made("a"), known.made("b\n\"c"), known.made("c")),
            (Some(two), Some(one), None)
        );
        record(&file).add(&[Saved::updated("a".into())]);
        assert_eq!(record(&file).made("a"), None, "it is the user's again");
        Ok(())
    }

    #[test]
    fn a_record_is_bounded_and_two_may_write_to_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.jsonl");
        let digest = Digest::of(b"1");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for round in 0..10 {
                        let many = (0..2_500).map(|n| Saved::made(format!("{thread}/{round}/{n}/{}", "x".repeat(100)), digest));
                        record(file).add(&many.collect::<Vec<_>>());
                    }
                });
            }
        });
        let size = fs::metadata(&file).expect("it is there").len();
        assert!(size <= BOUND + (1 << 20), "{size}");
        let known = record(&file);
        assert_eq!(
            (0..4)
                .filter(|thread| known.made(&format!("{thread}/9/2499/{}", "x".repeat(100))).is_some())
                .count(),
            4
        );
    }
}
