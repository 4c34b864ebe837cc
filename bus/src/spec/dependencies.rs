//! The packages that a job needs besides its own files: what declares them travels with the job, and they are installed where it runs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    spec::{InputFile, Refusal, input::check_paths, runtime::RuntimeRef},
};

/// Among the files: a project that only uv can install, in place of what requirements.txt says. An installer that does not know this
/// reads requirements.txt, which must stop it then.
pub const UV_PROJECT: &str = "uv/pyproject.toml";
/// Beside it: the project's settings alone, by which uv shows that it knows all of them.
pub const UV_SETTINGS: &str = "uv/settings.toml";

/// What installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Python's: a `requirements.txt`, read by `uv` or `pip`.
    Pip,
    /// Node's: a `package.json`, with its lock file or without, read by `npm`.
    Npm,
}

impl Kind {
    /// The file that the installer reads; what else is needed is named in it.
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
    /// What installs them.
    pub kind: Kind,
    /// Where the user declared them, in the user's words: `requirements.txt`, `report.py`.
    pub declared_in: String,
    /// How many packages are named there.
    pub packages: u32,
    /// The versions of Python that they need (`>=3.11`), as the specifiers of PEP 440; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// The files that the installer needs: `requirements.txt` or `package.json`, and what it names. Where `uv/pyproject.toml` is among
    /// them, uv installs that instead, and `uv/settings.toml` holds its settings alone. An empty `requirements.txt` alone installs
    /// nothing, and only `python` counts.
    pub files: Vec<InputFile>,
}

/// What a worker calls its own beside these files.
const RESERVED: &str = ".rgrid";

impl Dependencies {
    /// What they name in the store.
    pub fn contents(&self) -> impl Iterator<Item = Digest> {
        self.files.iter().map(|file| file.sha256)
    }

    /// Whether nothing is to be installed: they only say which versions of Python the job needs.
    #[must_use]
    pub fn installs_nothing(&self) -> bool {
        let empty = Digest::of(b"");
        let is_empty = |file: &InputFile| file.path.as_str() == self.kind.declaration() && file.sha256 == empty;
        self.kind == Kind::Pip && self.files.len() == 1 && self.files.iter().all(is_empty)
    }

    /// How they are called in a sentence: `3 packages (requirements.txt)`.
    #[must_use]
    pub fn called(&self) -> String {
        if let Some(python) = self.python.as_ref().filter(|_| self.packages == 0) {
            return format!("Python {python} ({})", self.declared_in);
        }
        let s = if self.packages == 1 { "" } else { "s" };
        format!("{} package{s} ({})", self.packages, self.declared_in)
    }

    /// Checks them, for a job of this runtime.
    ///
    /// # Errors
    /// A [`Refusal`] where they could not be installed.
    pub(crate) fn check(&self, runtime: Option<&RuntimeRef>) -> Result<(), Refusal> {
        let declaration = self.kind.declaration();
        if runtime.is_none() {
            return Err(Refusal(format!(
                "`dependencies` are installed for a runtime, and the job names none; give it one (for {declaration}: {})",
                match self.kind {
                    Kind::Pip => "python",
                    Kind::Npm => "node",
                }
            )));
        }
        if !self.files.iter().any(|file| file.path.as_str() == declaration) {
            return Err(Refusal(format!(
                "`dependencies.files` holds no `{declaration}`, which {} reads; add it",
                self.kind
            )));
        }
        if let Some(file) = self.files.iter().find(|file| file.path.as_str().starts_with(RESERVED)) {
            return Err(Refusal(format!(
                "`{}` among `dependencies.files` begins with `{RESERVED}`, which is the worker's own; give it another path",
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
    fn what_could_not_be_installed_is_refused_with_what_to_change() {
        let python: RuntimeRef = "python".parse().expect("a runtime");
        let refusal = |paths: &[&str], runtime| with(paths).check(runtime).expect_err("it cannot be installed").0;
        assert!(refusal(&["requirements.txt"], None).contains("give it one (for requirements.txt: python)"));
        assert!(refusal(&["other.txt"], Some(&python)).contains("holds no `requirements.txt`"));
        assert!(refusal(&["requirements.txt", ".rgrid-env"], Some(&python)).contains("the worker's own"));
        assert!(refusal(&["requirements.txt", "a", "a/b"], Some(&python)).contains("needs a directory"));
        assert_eq!(with(&["requirements.txt", "w1/a.whl"]).check(Some(&python)), Ok(()));
    }

    #[test]
    fn a_python_alone_is_said_by_an_empty_list() {
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
