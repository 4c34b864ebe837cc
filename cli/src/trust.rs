//! Which `rgrid.toml` the user trusts: by its path and the SHA-256 of its content, one small file each in the user's own state directory.
//! A change of the content asks again, as with direnv and mise.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bus::ids::Digest;
use chrono::{DateTime, Utc};
use dialoguer::Confirm;
use serde::{Deserialize, Serialize};

use crate::{
    failure::usage,
    output::{harmless, shown_lines},
};

/// The most lines of a file that are shown before the user is asked.
const SHOWN_LINES: usize = 100;
/// The longest note, in bytes: a path and a digest.
const NOTE_BYTES: u64 = 64 << 10;

/// A file that the user trusts, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The file.
    pub(crate) path: String,
    /// Its content.
    pub(crate) sha256: Digest,
    /// Since when.
    pub(crate) since: DateTime<Utc>,
}

/// What the user said of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is trusted as it is.
    Trusted,
    /// It was trusted, and is another now.
    Changed,
    /// Nothing.
    Unknown,
}

/// The user's notes on what is trusted.
#[derive(Debug)]
pub(crate) struct Trust {
    dir: PathBuf,
}

impl Trust {
    /// The notes of this user.
    ///
    /// # Errors
    /// Where no directory of the user's own is known.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        let state = crate::saving::state_dir().context("cannot determine the state directory; set HOME or XDG_STATE_HOME")?;
        Ok(Self {
            dir: state.join("trusted"),
        })
    }

    /// What was said of a file of this content; only the user's own notes count.
    pub(crate) fn standing(&self, path: &Path, content: &[u8]) -> Standing {
        match self.read(&self.note_of(path)) {
            Some(entry) if entry.sha256 == Digest::of(content) => Standing::Trusted,
            Some(_) => Standing::Changed,
            None => Standing::Unknown,
        }
    }

    /// Trusts a file of this content from now on.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub(crate) fn add(&self, path: &Path, content: &[u8]) -> anyhow::Result<Entry> {
        let entry = Entry {
            path: path.display().to_string(),
            sha256: Digest::of(content),
            since: Utc::now(),
        };
        self.write(path, &entry)
            .with_context(|| format!("cannot record in {} that {} is trusted", self.dir.display(), entry.path))?;
        Ok(entry)
    }

    fn write(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.persist(self.note_of(path))?;
        Ok(())
    }

    /// Trusts a file no longer. Says whether it was trusted.
    ///
    /// # Errors
    /// If the note cannot be removed.
    pub(crate) fn remove(&self, path: &Path) -> anyhow::Result<bool> {
        match fs::remove_file(self.note_of(path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| {
                format!(
                    "cannot remove {} from the list of trusted files in {}",
                    path.display(),
                    self.dir.display()
                )
            }),
        }
    }

    /// All that is trusted, by path.
    pub(crate) fn list(&self) -> Vec<Entry> {
        let notes = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut entries: Vec<Entry> = notes.filter_map(|note| self.read(&note.path())).collect();
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        entries
    }

    fn note_of(&self, path: &Path) -> PathBuf {
        self.dir.join(format!("{}.json", Digest::of(path.as_os_str().as_bytes())))
    }

    fn read(&self, note: &Path) -> Option<Entry> {
        let meta = fs::symlink_metadata(note).ok()?;
        let is_own = meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0;
        let bytes = (is_own && meta.len() <= NOTE_BYTES).then(|| fs::read(note).ok())??;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Goes on only where the user trusts a file of this content; asks on a terminal.
///
/// # Errors
/// A usage error with the command to run, where it is not trusted and nobody can be asked.
pub(crate) fn required(path: &Path, content: &str) -> anyhow::Result<()> {
    let trust = Trust::of_user()?;
    let before = match trust.standing(path, content.as_bytes()) {
        Standing::Trusted => return Ok(()),
        Standing::Changed => "has changed since you trusted it",
        Standing::Unknown => "is not trusted yet",
    };
    let shown = harmless(&path.display().to_string());
    if io::stdin().is_terminal() && io::stderr().is_terminal() && is_trusted_by_answer(&shown, before, content)? {
        trust.add(path, content.as_bytes())?;
        return Ok(());
    }
    Err(usage(format!(
        "{shown} {before}, and can choose which grid, files, secrets and variables `rgrid` uses; read it, then run: rgrid trust {}; to continue without it, choose the grid (--url or --data-dir), and use --no-defaults",
        harmless(&shell_words::quote(&path.display().to_string()))
    )))
}

fn is_trusted_by_answer(shown: &str, before: &str, content: &str) -> anyhow::Result<bool> {
    eprintln!("rgrid: {shown} {before}. Its content:\n{}", shown_lines(content, SHOWN_LINES));
    let question = Confirm::new().with_prompt("Trust this file?").default(false);
    let answer = question.interact();
    answer.with_context(|| format!("cannot read an answer; run `rgrid trust {shown}`"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_trusted_by_its_path_and_content() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let trust = Trust {
            dir: temp.path().join("trusted"),
        };
        let (one, other) = (Path::new("/a/rgrid.toml"), Path::new("/b/rgrid.toml"));
        assert_eq!(trust.standing(one, b"x"), Standing::Unknown);
        trust.add(one, b"x")?;
        assert_eq!(trust.standing(one, b"x"), Standing::Trusted);
        assert_eq!(trust.standing(one, b"y"), Standing::Changed);
        assert_eq!(trust.standing(other, b"x"), Standing::Unknown);
        trust.add(one, b"y")?;
        assert_eq!(trust.standing(one, b"x"), Standing::Changed, "only the last word counts");
        assert_eq!(
            trust.list().into_iter().map(|entry| entry.path).collect::<Vec<_>>(),
            ["/a/rgrid.toml"]
        );
        assert!(trust.remove(one)? && !trust.remove(one)?);
        assert_eq!(trust.standing(one, b"y"), Standing::Unknown);
        Ok(())
    }

    #[test]
    fn a_note_that_others_could_have_written_does_not_count() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let trust = Trust { dir: temp.path().into() };
        let path = Path::new("/a/rgrid.toml");
        trust.add(path, b"x")?;
        let note = trust.note_of(path);
        fs::set_permissions(&note, fs::Permissions::from_mode(0o666))?;
        assert_eq!(trust.standing(path, b"x"), Standing::Unknown);
        fs::set_permissions(&note, fs::Permissions::from_mode(0o600))?;
        fs::rename(&note, temp.path().join("real"))?;
        std::os::unix::fs::symlink(temp.path().join("real"), &note)?;
        assert_eq!(trust.standing(path, b"x"), Standing::Unknown);
        Ok(())
    }
}
