//! The packages that a script needs: where they are declared, and what of that goes along.
//!
//! What is said nearest counts: `--requirements`, the script's own head (PEP 723), a requirements.txt, a pyproject.toml; for Node a
//! package.json. Files are looked for beside the script, then above it up to the current directory.

mod doc;
mod foreign;
mod inline;
mod lines;
mod local;
mod node;
mod npmrc;
mod poetry;
mod pyproject;
mod python;
mod requirements;
mod settings;
mod uv;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use bus::{
    ids::Digest,
    spec::{
        InputFile, RelPath,
        dependencies::{Dependencies, Kind},
    },
};
use client::Hashed;

use super::{
    input::{hashed_of, parsed},
    planner::Planner,
};
use crate::{
    failure::usage,
    run::{messages, scan::is_of_project},
    text,
};

/// The longest file that declares packages, in bytes.
const LONGEST: u64 = 16 << 20;

/// What is said of a file that declares packages, and cannot be read.
fn wrong_file(error: &text::Error) -> anyhow::Error {
    usage(format!("{error}; or leave the packages out with --no-requirements"))
}

/// Packages, as they are declared here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// What installs them.
    pub(crate) kind: Kind,
    /// Where they are declared, in the user's words.
    pub(crate) declared_in: String,
    /// How many are named.
    pub(crate) packages: u32,
    /// The versions of Python that they need.
    pub(crate) python: Option<String>,
    /// What the installer needs.
    pub(crate) files: Vec<(RelPath, Content)>,
}

/// What a file for the installer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// This.
    Made(Vec<u8>),
    /// What a file here does.
    Of(PathBuf),
}

impl Declared {
    /// What Python needs, where it needs anything: packages, or a version.
    fn pip(declared_in: String, python: Option<String>, read: requirements::Read) -> Option<Self> {
        let declared = Self {
            python: python.filter(|python| !python.trim().is_empty()),
            ..Self::of(declared_in, read)
        };
        (declared.packages > 0 || declared.python.is_some()).then_some(declared)
    }

    fn of(declared_in: String, mut read: requirements::Read) -> Self {
        if read.packages == 0 {
            // The Python alone counts.
            let empty = RelPath::from_str(Kind::Pip.declaration()).map(|path| (path, Content::Made(Vec::new())));
            read.files = empty.into_iter().collect();
        }
        Self {
            kind: Kind::Pip,
            declared_in,
            packages: read.packages,
            python: None,
            files: read.files,
        }
    }

    /// The files here whose content goes along.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().filter_map(|(_, content)| match content {
            Content::Of(source) => Some(source),
            Content::Made(_) => None,
        })
    }

    /// What goes along that is not a file here.
    pub(crate) fn made(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.files.iter().filter_map(|(_, content)| match content {
            Content::Made(bytes) => Some(bytes),
            Content::Of(_) => None,
        })
    }

    /// As a job says it, where the files here are known by their content.
    ///
    /// # Errors
    /// If one of them was not read, with its name.
    pub(crate) fn resolve(&self, hashed: &HashMap<PathBuf, Hashed>) -> anyhow::Result<Dependencies> {
        let files = self.files.iter().map(|(path, content)| {
            let (sha256, size) = match content {
                Content::Made(bytes) => (Digest::of(bytes), bytes.len() as u64),
                Content::Of(source) => hashed_of(hashed, source).map(|file| (file.sha256, file.size))?,
            };
            Ok(InputFile {
                path: path.clone(),
                sha256,
                size,
                executable: false,
                mode: None,
                modified_ms: None,
            })
        });
        Ok(Dependencies {
            kind: self.kind,
            declared_in: self.declared_in.clone(),
            packages: self.packages,
            python: self.python.clone(),
            files: files.collect::<anyhow::Result<_>>()?,
        })
    }
}

impl Planner<'_> {
    /// The packages that a script needs, if it needs any. A script for Node also gets the package.json that says how it is to be read.
    ///
    /// # Errors
    /// A usage error where they are declared as they cannot be sent.
    pub(crate) fn dependencies(&mut self, script: &str, runtime: Option<&str>, called: &str) -> anyhow::Result<Option<Declared>> {
        let Some(files) = self.options.files else { return Ok(None) };
        let script = self.cwd.join(script);
        let language = runtime.map(|runtime| runtime.split(':').next().unwrap_or(runtime));
        let package = (language == Some("node")).then(|| self.above(&script, "package.json")).flatten();
        if let Some(package) = &package {
            self.send_package(package, called)?;
        }
        if files.no_requirements {
            return Ok(None);
        }
        if let Some(named) = &files.requirements {
            let Some(_) = runtime else {
                return Err(usage(
                    "--requirements names packages for a script's runtime; a program brings its own",
                ));
            };
            return self.named(named).map(Some);
        }
        match (language, package) {
            (Some("python"), _) => self.of_python(&script),
            // Packages that the user brings are those that are meant.
            (Some("node"), Some(package)) if !self.sent.keys().any(|path| path.starts_with("node_modules/")) => {
                node::read(&package, self.shown(&package))
            }
            (_, _) => Ok(None),
        }
    }

    fn named(&self, named: &Path) -> anyhow::Result<Declared> {
        let path = self.cwd.join(named);
        let shown = named.display().to_string();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(foreign) = foreign::FOREIGN.iter().find(|foreign| foreign.name == name) {
            return Err(usage(format!(
                "--requirements {shown}: rgrid does not read a {name}; {}",
                foreign.out
            )));
        }
        let declared = match name {
            "package.json" => node::read(&path, shown.clone()),
            "pyproject.toml" => pyproject::read(&path, &shown, self.cwd),
            _ => requirements::read(&path, &shown, self.cwd).map(|read| Declared::pip(shown.clone(), None, read)),
        };
        let declared = declared?.filter(|declared| declared.packages > 0);
        declared.ok_or_else(|| usage(format!("--requirements {shown}: it names no packages; leave it out, or correct it")))
    }

    fn of_python(&self, script: &Path) -> anyhow::Result<Option<Declared>> {
        let shown = self.shown(script);
        if let Some(found) = inline::read(script, &shown, self.cwd)? {
            return Ok(Some(found).filter(|found| found.packages > 0 || found.python.is_some()));
        }
        let project = self.above(script, "pyproject.toml");
        if let Some(path) = self.above(script, "requirements.txt") {
            let shown = self.shown(&path);
            let read = requirements::read(&path, &shown, self.cwd)?;
            let dir = path.parent().unwrap_or(self.cwd);
            let project = project.filter(|project| project.parent() == Some(dir));
            if read.index.is_none() && read.packages > 0 {
                pyproject::no_index_beside(project.as_deref(), &shown, &|path| self.shown(path))?;
                pyproject::no_settings_beside(dir)?;
            }
            let python = project
                .map(|path| pyproject::python_of(&path, &self.shown(&path)))
                .transpose()?
                .flatten();
            return Ok(Declared::pip(shown, python, read));
        }
        let declared = match project {
            Some(path) => pyproject::read(&path, &self.shown(&path), self.cwd)?,
            None => None,
        };
        if declared.as_ref().is_none_or(|declared| declared.packages == 0) {
            self.unread(script);
        }
        Ok(declared)
    }

    /// Says that packages are declared in a form that is not read, once, where the script needs some.
    fn unread(&self, script: &Path) {
        let found = foreign::FOREIGN.iter().find_map(|foreign| {
            let path = self.above(script, foreign.name)?;
            foreign::declares(foreign, &path).then_some((path, foreign.out))
        });
        if let Some((path, out)) = found.filter(|_| foreign::needs_packages(script)) {
            messages::once(&format!("{} is not read, and no packages are installed; {out}", self.shown(&path)));
        }
    }

    /// A file of that name beside a script, or above it up to the current directory.
    fn above(&self, script: &Path, name: &str) -> Option<PathBuf> {
        let (script, cwd) = (script.canonicalize().ok()?, self.cwd.canonicalize().ok()?);
        let beside = script.parent()?;
        let dirs = beside
            .ancestors()
            .take_while(|dir| *dir == beside || (beside.starts_with(&cwd) && dir.starts_with(&cwd)));
        // A link that leads out of the project is nobody's declaration: what it leads to would be sent.
        dirs.map(|dir| dir.join(name)).find(|path| {
            let is_own = path.is_file() && is_of_project(path, &[beside, &cwd]);
            if path.is_file() && !is_own {
                messages::once(&format!(
                    "{} leads out of the project, and is not read; name it with --requirements if it is meant",
                    self.shown(path)
                ));
            }
            is_own
        })
    }

    /// A path as the user would write it.
    fn shown(&self, path: &Path) -> String {
        let cwd = self.cwd.canonicalize().unwrap_or_default();
        let relative = path.strip_prefix(&cwd).or_else(|_| path.strip_prefix(self.cwd)).unwrap_or(path);
        relative.display().to_string()
    }

    /// Has a package.json sent along to where Node looks for it: at the same place from the script.
    fn send_package(&mut self, package: &Path, called: &str) -> anyhow::Result<()> {
        let meta = std::fs::metadata(package).map_err(|error| super::input::unreadable(package, &error))?;
        let cwd = self.cwd.canonicalize().unwrap_or_default();
        let at = match package.strip_prefix(&cwd) {
            Ok(inside) => inside.display().to_string(),
            Err(_) => match called.trim_start_matches("./").rsplit_once('/') {
                Some((dir, _)) => format!("{dir}/package.json"),
                None => "package.json".to_owned(),
            },
        };
        parsed(&at)?;
        self.add(&at, package.to_owned(), &meta)
    }
}
