//! The packages that a job needs: the files that declare them travel with the job, and the worker installs the packages.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    spec::{InputFile, Refusal, input::check_paths, runtime::RuntimeRef},
};

/// One of the files: a project that only uv can install, instead of `requirements.txt`. An installer that does not support it reads
/// `requirements.txt`, which must make that installer fail.
pub const UV_PROJECT: &str = "uv/pyproject.toml";
/// One of the files, with the project: the project's settings alone, with which uv checks that it supports all of them.
pub const UV_SETTINGS: &str = "uv/settings.toml";

/// The installer of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Python packages: a `requirements.txt`, read by `uv` or `pip`.
    Pip,
    /// Node packages: a `package.json`, with or without a lock file, read by `npm`.
    Npm,
}

impl Kind {
    /// The file that the installer reads. It names the other files.
    #[must_use]
    pub const fn declaration(self) -> &'static str {
        match self {
            Self::Pip => "requirements.txt",
            Self::Npm => "package.json",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pip => "pip",
            Self::Npm => "npm",
        })
    }
}

/// The packages that a job needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependencies {
    /// The installer.
    pub kind: Kind,
    /// The file in which the user declared the packages, as a user names it: `requirements.txt`, `report.py`.
    pub declared_in: String,
    /// How many packages that file names.
    pub packages: u32,
    /// The versions of Python that the packages need, as PEP 440 specifiers (`>=3.11`); absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// The files that the installer needs: `requirements.txt` or `package.json`, and the files that it names. If `uv/pyproject.toml` is
    /// one of them, uv installs that project instead, and `uv/settings.toml` contains its settings alone. If the only file is an empty
    /// `requirements.txt`, nothing is installed, and only `python` counts.
    pub files: Vec<InputFile>,
}

/// The prefix of the worker's own files in the same directory.
const RESERVED: &str = ".rgrid";

impl Dependencies {
    /// The contents in the store that these packages need.
    pub fn contents(&self) -> impl Iterator<Item = Digest> {
        self.files.iter().map(|file| file.sha256)
    }

    /// Whether there is nothing to install, because only the version of Python is given.
    #[must_use]
    pub fn installs_nothing(&self) -> bool {
        let empty = Digest::of(b"");
        let is_empty = |file: &InputFile| file.path.as_str() == self.kind.declaration() && file.sha256 == empty;
        self.kind == Kind::Pip && self.files.len() == 1 && self.files.iter().all(is_empty)
    }

    /// The packages in a sentence: `3 packages (requirements.txt)`.
    #[must_use]
    pub fn called(&self) -> String {
        if let Some(python) = self.python.as_ref().filter(|_| self.packages == 0) {
            return format!("Python {python} ({})", self.declared_in);
        }
        let s = if self.packages == 1 { "" } else { "s" };
        format!("{} package{s} ({})", self.packages, self.declared_in)
    }

    /// Checks the packages of a job with this runtime.
    ///
    /// # Errors
    /// A [`Refusal`] if the packages cannot be installed.
    pub(crate) fn check(&self, runtime: Option<&RuntimeRef>) -> Result<(), Refusal> {
        let declaration = self.kind.declaration();
        if runtime.is_none() {
            return Err(Refusal(format!(
                "`dependencies` need a runtime, and the job has none; set `runtime` (for {declaration}: {})",
                match self.kind {
                    Kind::Pip => "python",
                    Kind::Npm => "node",
                }
            )));
        }
        if !self.files.iter().any(|file| file.path.as_str() == declaration) {
            return Err(Refusal(format!(
                "`dependencies.files` has no `{declaration}`, which {} needs; add it",
                self.kind
            )));
        }
        if let Some(file) = self.files.iter().find(|file| file.path.as_str().starts_with(RESERVED)) {
            return Err(Refusal(format!(
                "`{}` in `dependencies.files` begins with `{RESERVED}`, which is reserved for the worker; give it another path",
                file.path
            )));
        }
        check_paths(&self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(paths: &[&str]) -> Dependencies {
        let files = paths.iter().map(|path| InputFile {
            path: path.parse().expect("a path"),
            sha256: Digest::of(path.as_bytes()),
            size: 1,
            executable: false,
            mode: None,
            modified_ms: None,
        });
        Dependencies {
            kind: Kind::Pip,
            declared_in: "requirements.txt".to_owned(),
            packages: 1,
            python: None,
            files: files.collect(),
        }
    }

    #[test]
    fn packages_that_cannot_be_installed_are_refused() {
        let python: RuntimeRef = "python".parse().expect("a runtime");
        let refusal = |paths: &[&str], runtime| with(paths).check(runtime).expect_err("it cannot be installed").0;
        assert!(refusal(&["requirements.txt"], None).contains("set `runtime` (for requirements.txt: python)"));
        assert!(refusal(&["other.txt"], Some(&python)).contains("has no `requirements.txt`"));
        assert!(refusal(&["requirements.txt", ".rgrid-env"], Some(&python)).contains("reserved for the worker"));
        assert!(refusal(&["requirements.txt", "a", "a/b"], Some(&python)).contains("needs a directory"));
        assert_eq!(with(&["requirements.txt", "w1/a.whl"]).check(Some(&python)), Ok(()));
    }

    #[test]
    fn an_empty_list_only_sets_the_version_of_python() {
        let mut alone = with(&["requirements.txt"]);
        assert!(!alone.installs_nothing(), "it holds something");
        alone.files[0].sha256 = Digest::of(b"");
        alone.packages = 0;
        alone.python = Some(">=3.11".to_owned());
        assert!(alone.installs_nothing());
        assert_eq!(alone.called(), "Python >=3.11 (requirements.txt)");
        let mut with_more = with(&["requirements.txt", UV_PROJECT]);
        with_more.files[0].sha256 = Digest::of(b"");
        assert!(!with_more.installs_nothing(), "uv has something to install");
    }
}
