//! Runtimes: what `python` means, as a program of the worker and as an image.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use async_nats::jetstream;
use bus::{
    grid::runtimes::RuntimesSet,
    ids::Token,
    log::{read, sys},
    spec::runtime::RuntimeRef,
};
use parking_lot::RwLock;

use super::Error;

/// One runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The interpreter and its own arguments; the job's command follows them.
    pub process: Vec<String>,
    /// The images that have it: the first that is there is used, and if none is, the last is pulled.
    pub images: Vec<String>,
}

/// The runtimes that a worker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeTable {
    by_name: BTreeMap<Token, Runtime>,
    /// The images for a command without a runtime.
    program_images: Vec<String>,
    /// What the worker's operator says, which counts more than what the deployment does.
    own: Vec<(Token, Vec<String>, Option<String>)>,
}

/// The runtimes that a worker knows, as the deployment's operator changes them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtimes(Arc<RwLock<Arc<RuntimeTable>>>);

impl From<RuntimeTable> for Runtimes {
    fn from(table: RuntimeTable) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(table))))
    }
}

impl Runtimes {
    /// The table as it stands.
    #[must_use]
    pub fn table(&self) -> Arc<RuntimeTable> {
        Arc::clone(&self.0.read())
    }

    /// Reads from the log which runtimes the deployment has now.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(crate) async fn read(&self, js: &jetstream::Context) -> Result<RuntimesSet, read::Error> {
        let (set, _) = sys::runtimes(js).await?;
        self.deployed(&set);
        Ok(set)
    }

    /// Takes in what the deployment says.
    pub fn deployed(&self, set: &RuntimesSet) {
        let table = self.table().deployed(set);
        *self.0.write() = Arc::new(table);
    }
}

/// An entry of the table that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a runtime: write `name=interpreter argument…`, `name@image`, or `name=interpreter@image`, as in `python=python3.12@python:3.12`"
)]
pub struct ParseError(String);

/// What the names of images begin with that are made for this grid (`rgrid image build`), and that no registry has.
pub(crate) const OWN: &str = "rgrid/";

/// The image that `make` builds from the machine's own files; it has Python and the shells.
const LOCAL_IMAGE: &str = "rgrid/python:3";

impl Default for RuntimeTable {
    fn default() -> Self {
        let built_in: [(&str, &[&str], &[&str]); 9] = [
            ("python", &["python3"], &[LOCAL_IMAGE, "rgrid/python:latest", "python:3-slim"]),
            ("node", &["node"], &["rgrid/node:latest", "node:lts-slim"]),
            ("bash", &["bash"], &[LOCAL_IMAGE, "debian:stable-slim"]),
            ("sh", &["sh"], &[LOCAL_IMAGE, "debian:stable-slim"]),
            ("perl", &["perl"], &["rgrid/perl:latest", "perl:5-slim"]),
            ("ruby", &["ruby"], &["rgrid/ruby:latest", "ruby:3-slim"]),
            ("php", &["php"], &["rgrid/php:latest", "php:8-cli"]),
            ("R", &["Rscript"], &["rgrid/r:latest", "r-base:latest"]),
            ("julia", &["julia"], &["julia:1"]),
        ];
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut table = Self {
            by_name: BTreeMap::new(),
            program_images: owned(&[LOCAL_IMAGE, "debian:stable-slim"]),
            own: Vec::new(),
        };
        for (name, process, images) in built_in {
            if let Ok(name) = name.parse() {
                table.by_name.insert(
                    name,
                    Runtime {
                        process: owned(process),
                        images: owned(images),
                    },
                );
            }
        }
        table
    }
}

impl RuntimeTable {
    /// The table with one runtime more, or another meaning of one that it has: what is empty stays as it was.
    #[must_use]
    pub fn with(mut self, name: Token, process: Vec<String>, image: Option<String>) -> Self {
        self.mean(name.clone(), &process, image.as_slice());
        self.own.push((name, process, image));
        self
    }

    /// What is built in, with what the deployment says of it, and then what the worker's operator does.
    #[must_use]
    pub fn deployed(&self, set: &RuntimesSet) -> Self {
        let mut table = Self::default();
        for (name, meaning) in &set.runtimes {
            table.mean(name.clone(), &meaning.interpreter, &meaning.images);
        }
        for (name, process, image) in &self.own {
            table.mean(name.clone(), process, image.as_slice());
        }
        table.own.clone_from(&self.own);
        table
    }

    fn mean(&mut self, name: Token, process: &[String], images: &[String]) {
        let runtime = self.by_name.entry(name).or_insert_with(|| Runtime {
            process: Vec::new(),
            images: Vec::new(),
        });
        if !process.is_empty() {
            runtime.process = process.to_vec();
        }
        if !images.is_empty() {
            runtime.images = images.to_vec();
        }
    }

    /// Whether there is a runtime of this name.
    #[must_use]
    pub fn knows(&self, name: &Token) -> bool {
        self.by_name.contains_key(name)
    }

    /// All runtimes, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Token, &Runtime)> {
        self.by_name.iter()
    }

    /// The table with what a configuration says: `name=interpreter argument…`, `name@image` or `name=interpreter argument…@image`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn with_entry(self, entry: &str) -> Result<Self, ParseError> {
        let refused = || ParseError(entry.to_owned());
        let (head, image) = match entry.split_once('@') {
            Some((_, "")) => return Err(refused()),
            Some((head, image)) => (head, Some(image.trim().to_owned())),
            None => (entry, None),
        };
        let (name, process) = head.split_once('=').unwrap_or((head, ""));
        let process: Vec<String> = process.split_whitespace().map(str::to_owned).collect();
        if process.is_empty() && image.is_none() {
            return Err(refused());
        }
        let name = Token::from_str(name.trim()).map_err(|_| refused())?;
        Ok(self.with(name, process, image))
    }

    /// A runtime by its name.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if the table does not have it.
    pub fn get(&self, name: &Token) -> Result<&Runtime, Error> {
        self.by_name.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.by_name.keys().map(Token::as_str).collect();
            Error::Unrunnable(format!(
                "this worker knows no runtime `{name}`: it knows {}; the deployment's operator can add it (runtimes.toml), or the worker's (--runtime)",
                known.join(", ")
            ))
        })
    }

    /// The interpreter of a runtime, as a process.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if the table does not have it.
    pub fn interpreter(&self, name: &Token) -> Result<&[String], Error> {
        match self.get(name)?.process.as_slice() {
            [] => Err(Error::Unrunnable(format!(
                "runtime `{name}` is an image on this worker: run it with Docker (`--executor docker`)"
            ))),
            process => Ok(process),
        }
    }

    /// The images for a runtime, or for a command that needs none; the first one there is used, and the last is pulled.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if there is none.
    pub fn images(&self, runtime: Option<&RuntimeRef>) -> Result<Vec<String>, Error> {
        let Some(RuntimeRef { name, version }) = runtime else {
            return Ok(self.program_images.clone());
        };
        let images = &self.get(name)?.images;
        match (images.last(), version) {
            (None, _) => Err(Error::Unrunnable(format!(
                "this worker has no image for runtime `{name}`: name one (`--image`), or run it as a process (`--executor process`)"
            ))),
            (Some(_), None) => Ok(images.clone()),
            (Some(public), Some(version)) => Ok(versioned_images(name, public, version)),
        }
    }

    /// The names of all runtimes.
    pub fn names(&self) -> impl Iterator<Item = &Token> {
        self.by_name.keys()
    }
}

/// The images of one version: one that was made for this grid, and, where its tags begin with the version as those of the official
/// images do (`python:3.12-slim`), the public one.
fn versioned_images(name: &Token, public: &str, version: &str) -> Vec<String> {
    let own = format!("{OWN}{}:{version}", name.as_str().to_ascii_lowercase());
    let at = public.rfind(':').filter(|at| !public[*at..].contains('/'));
    let (repository, tag) = at.map_or((public, ""), |at| (&public[..at], &public[at + 1..]));
    if !repository.ends_with(name.as_str()) {
        return vec![own];
    }
    let slim = if tag.ends_with("-slim") { "-slim" } else { "" };
    vec![own, format!("{repository}:{version}{slim}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> Token {
        "python".parse().unwrap()
    }

    #[test]
    fn an_entry_changes_only_what_it_names() {
        let table = RuntimeTable::default().with_entry("python=python3.12 -X dev").unwrap();
        assert_eq!(table.interpreter(&python()).unwrap(), ["python3.12", "-X", "dev"]);
        let python_images = |table: &RuntimeTable| table.images(Some(&python().into())).unwrap();
        assert_eq!(python_images(&table), python_images(&RuntimeTable::default()));
        let table = table.with_entry("python@registry:5000/py:3").unwrap();
        assert_eq!(table.interpreter(&python()).unwrap(), ["python3.12", "-X", "dev"]);
        assert_eq!(python_images(&table), ["registry:5000/py:3"]);
    }

    #[test]
    fn the_deployment_changes_what_is_built_in_and_the_worker_has_the_last_word() {
        let set = |json: &str| serde_json::from_str::<RuntimesSet>(json).unwrap();
        let said =
            r#"{"runtimes":{"python":{"interpreter":["pypy3"],"images":["lab/a:1","lab/b:1"]},"racket":{"interpreter":["racket"]}}}"#;
        let runtimes = Runtimes::from(RuntimeTable::default().with_entry("python@own:1").unwrap());
        runtimes.deployed(&set(said));
        let table = runtimes.table();
        assert_eq!(table.interpreter(&python()).unwrap(), ["pypy3"]);
        assert_eq!(table.images(Some(&python().into())).unwrap(), ["own:1"]);
        assert!(table.knows(&"racket".parse().unwrap()));
        runtimes.deployed(&set("{}"));
        assert_eq!(runtimes.table().interpreter(&python()).unwrap(), ["python3"]);
        assert!(!runtimes.table().knows(&"racket".parse().unwrap()));
        assert_eq!(runtimes.table().images(Some(&python().into())).unwrap(), ["own:1"]);
    }

    #[test]
    fn every_runtime_that_is_built_in_has_a_meaning() {
        let table = RuntimeTable::default();
        let names = bus::spec::runtime::BUILT_IN.map(|(name, _)| name.parse::<Token>().unwrap());
        assert!(names.iter().all(|name| table.knows(name)) && table.names().count() == names.len());
    }

    #[test]
    fn a_new_runtime_may_be_an_image_only() {
        let table = RuntimeTable::default().with_entry("scheme@scheme:1").unwrap();
        let scheme: Token = "scheme".parse().unwrap();
        assert_eq!(table.images(Some(&scheme.clone().into())).unwrap(), ["scheme:1"]);
        assert!(table.interpreter(&scheme).unwrap_err().to_string().contains("--executor docker"));
    }

    #[test]
    fn an_unknown_runtime_is_answered_with_those_there_are() {
        let error = RuntimeTable::default().get(&"cobol".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("R, bash, julia, node, perl, php, python, ruby, sh"),
            "{error}"
        );
    }

    #[test]
    fn a_version_chooses_the_image() {
        let images = |text: &str| RuntimeTable::default().images(Some(&text.parse().unwrap()));
        assert_eq!(images("python:3.12").unwrap(), ["rgrid/python:3.12", "python:3.12-slim"]);
        assert_eq!(images("julia:1.10").unwrap(), ["rgrid/julia:1.10", "julia:1.10"]);
        // Those of a public image that is not told apart by this version are never pulled.
        assert_eq!(images("bash:5.2").unwrap(), ["rgrid/bash:5.2"]);
        assert_eq!(images("R:4.2").unwrap(), ["rgrid/r:4.2"]);
        let table = RuntimeTable::default().with_entry("python@registry:5000/lab/python").unwrap();
        let images = table.images(Some(&"python:3".parse().unwrap())).unwrap();
        assert_eq!(images[1], "registry:5000/lab/python:3");
    }

    #[test]
    fn nonsense_is_refused() {
        for entry in ["", "python", "=x", "a b=c", "python@"] {
            assert!(RuntimeTable::default().with_entry(entry).is_err(), "{entry}");
        }
    }
}
