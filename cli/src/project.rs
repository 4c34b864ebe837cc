//! `rgrid.toml`: what a project says of its runs, and of the grid that they belong to.

use std::{
    env, fs,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use reqwest::Url;
use toml::de::{DeTable, DeValue};

use crate::{failure::usage, text, trust};

mod below;

/// What the file is called.
pub(crate) const NAME: &str = "rgrid.toml";
/// The longest such file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What a project's `rgrid.toml` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Project {
    /// The grid that it belongs to.
    pub(crate) url: Option<Url>,
    /// The file that holds this grid's key.
    pub(crate) key_file: Option<PathBuf>,
    /// Default options of `rgrid run`.
    pub(crate) run: Vec<Setting>,
}

/// An option of `rgrid run` that a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The file and the line, as a message names them.
    pub(crate) from: String,
    /// The option, as words of the command line.
    pub(crate) words: Vec<String>,
}

/// What of a project is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All that it says.
    Run,
    /// The grid that it belongs to, and its key.
    Grid,
}

impl Project {
    /// The project of the current directory: the nearest `rgrid.toml` in it or above, up to the project's root (`.git`), the
    /// user's home, or the root of all. One that says something of what is wanted must be trusted.
    ///
    /// # Errors
    /// A usage error where the file cannot be meant, belongs to somebody else, or is not trusted.
    pub(crate) fn of_here(wanted: Wanted) -> anyhow::Result<Self> {
        match path_of_here()? {
            Some(path) => load(&path, wanted),
            None => Ok(Self::default()),
        }
    }

    fn says(&self, wanted: Wanted) -> bool {
        self.url.is_some() || self.key_file.is_some() || (wanted == Wanted::Run && !self.run.is_empty())
    }
}

/// The `rgrid.toml` of the current directory, if there is one.
///
/// # Errors
/// If there is no current directory.
pub(crate) fn path_of_here() -> anyhow::Result<Option<PathBuf>> {
    let cwd = env::current_dir().context("cannot determine the current directory; change to a directory that exists")?;
    Ok(find(&cwd, env::home_dir().as_deref()))
}

fn find(cwd: &Path, home: Option<&Path>) -> Option<PathBuf> {
    for dir in cwd.ancestors() {
        let path = dir.join(NAME);
        if path.is_file() {
            return Some(path);
        }
        if dir.join(".git").exists() || home == Some(dir) {
            return None;
        }
    }
    None
}

/// Reads a file that belongs to this user, whatever it says.
///
/// # Errors
/// A usage error where it cannot be read, or belongs to somebody else.
pub(crate) fn content(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let meta = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
    // As git has it: in a directory that all may write to, somebody else's file must not choose where our files go.
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        return Err(usage(format!(
            "{shown} belongs to another user ({}), and is not trusted; change its owner (chown), or ignore it with --no-defaults and --url",
            meta.uid()
        )));
    }
    text::read(path, MAX_BYTES).map_err(|error| usage(error.to_string()))
}

fn load(path: &Path, wanted: Wanted) -> anyhow::Result<Project> {
    let text = content(path)?;
    let project = read(path, &text)?;
    if !project.says(wanted) {
        return Ok(Project::default());
    }
    // What was read is what is trusted: the file is not read again.
    trust::required(path, &text)?;
    Ok(project)
}

fn read(path: &Path, text: &str) -> anyhow::Result<Project> {
    let reader = Reader { path, text };
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        reader.wrong(&span, error.message().trim())
    })?;
    let mut project = Project::default();
    for (key, value) in table.get_ref() {
        let span = key.span();
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("url", DeValue::String(url)) => {
                let url: Url = url.parse().map_err(|_| reader.wrong(&span, "`url` is like http://host:port"))?;
                project.url = Some(url);
            }
            ("key-file", DeValue::String(file)) => {
                let file = reader.beside(file);
                let is_below = reader.dir().is_ok_and(|dir| below::path_is_below(&dir, &file));
                if !is_below {
                    return Err(reader.wrong(&span, &leads_out(&format!("`key-file` names {}", file.display()))));
                }
                project.key_file = Some(file);
            }
            ("run", DeValue::Table(table)) => project.run = reader.options(table)?,
            (name, _) => {
                let sentence =
                    format!("`{name}` is not valid here; the settings are `url = \"…\"`, `key-file = \"…\"` and the table `[run]`");
                return Err(reader.wrong(&span, &sentence));
            }
        }
    }
    Ok(project)
}

fn leads_out(what: &str) -> String {
    format!("{what}, which is not below the project's directory; move it there, or give the option on the command line")
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("{}, line {line}", self.path.display())
    }

    fn wrong(&self, span: &Range<usize>, sentence: &str) -> anyhow::Error {
        usage(format!("{}: {sentence}", self.place(span)))
    }

    /// The project's directory, where it really is.
    fn dir(&self) -> anyhow::Result<PathBuf> {
        let dir = self
            .path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))
    }

    /// Rejects a path that leads out of the project.
    fn check(&self, name: &str, values: &[String], span: &Range<usize>) -> anyhow::Result<()> {
        let (project, cwd) = (self.dir()?, env::current_dir()?);
        match values.iter().find(|value| !below::is_below(&project, &cwd, name, value)) {
            Some(value) => Err(self.wrong(span, &leads_out(&format!("`{name}` names {value}")))),
            None => Ok(()),
        }
    }

    /// A file that is named relative to the project.
    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// `cpu = 2` is `--cpu=2`, `detach = true` is `--detach`, a list is the option several times, and so is a table: `KEY=VALUE`.
    fn options(&self, table: &DeTable<'_>) -> anyhow::Result<Vec<Setting>> {
        let mut settings = Vec::new();
        for (key, value) in table {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            let with = |value: String| {
                let value = if below::FROM_PROJECT.contains(&name) {
                    self.beside(&value).display().to_string()
                } else {
                    value
                };
                format!("--{name}={value}")
            };
            let unfit = || self.wrong(&span, &format!("`{name}` is text, a number, true, or a list of these"));
            self.check(name, &texts(value.get_ref()), &span)?;
            let words = match value.get_ref() {
                DeValue::Boolean(true) => vec![format!("--{name}")],
                DeValue::Boolean(false) => Vec::new(),
                DeValue::Array(values) => {
                    let values = values.iter().map(|value| scalar(value.get_ref()).map(with));
                    values.collect::<Option<_>>().ok_or_else(unfit)?
                }
                DeValue::Table(pairs) => {
                    let pair = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
                        Some(with(format!("{}={}", key.get_ref(), scalar(value.get_ref())?)))
                    };
                    pairs.iter().map(pair).collect::<Option<_>>().ok_or_else(unfit)?
                }
                one => vec![with(scalar(one).ok_or_else(unfit)?)],
            };
            let from = self.place(&span);
            settings.push(Setting { from, words });
        }
        Ok(settings)
    }
}

/// The texts that a value is made of, where it is made of texts; of a table, `KEY=VALUE`.
fn texts(value: &DeValue<'_>) -> Vec<String> {
    match value {
        DeValue::Array(values) => values.iter().filter_map(|value| scalar(value.get_ref())).collect(),
        DeValue::Table(pairs) => {
            let pairs = pairs.iter();
            pairs
                .filter_map(|(key, value)| Some(format!("{}={}", key.get_ref(), scalar(value.get_ref())?)))
                .collect()
        }
        one => scalar(one).into_iter().collect(),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projects_options_become_words_that_know_their_line() {
        let text = "url = \"http://grid:8080\"\nkey-file = \"grid.key\"\n\n[run]\ncpu = 0.5\ndetach = true\nverbose = false\nretry-on = [75, 76]\nenv-file = \"a.env\"\n\n[run.env]\nMODE = \"fast one\"\n";
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("it is there");
        let at = |words: &str| words.replace("/p/", &format!("{}/", dir.display()));
        let project = read(&dir.join(NAME), text).expect("it is well-formed");
        assert_eq!(project.url.map(String::from).as_deref(), Some("http://grid:8080/"));
        assert_eq!(project.key_file.as_deref(), Some(dir.join("grid.key").as_path()));
        let mut said: Vec<(String, String)> = project.run.iter().map(|one| (one.from.clone(), one.words.join(" "))).collect();
        said.sort_unstable();
        let expected = [
            ("/p/rgrid.toml, line 11", "--env=MODE=fast one"),
            ("/p/rgrid.toml, line 5", "--cpu=0.5"),
            ("/p/rgrid.toml, line 6", "--detach"),
            ("/p/rgrid.toml, line 7", ""),
            ("/p/rgrid.toml, line 8", "--retry-on=75 --retry-on=76"),
            ("/p/rgrid.toml, line 9", "--env-file=/p/a.env"),
        ];
        assert_eq!(said, expected.map(|(from, words)| (at(from), at(words))));
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_its_line() {
        let cases = [
            ("\n\nurl = 5", "line 3: `url` is not valid here"),
            ("[run]\ncpu = 2\ncpu = 3\n", "line 3"),
            ("[run]\ncpu =\n", "line 2"),
            ("queue = \"x\"", "line 1: `queue` is not valid here; the settings are"),
            ("[run]\nafter = 1979-05-27\n", "line 2: `after` is text, a number"),
            ("url = \"here\"", "line 1: `url` is like http://host:port"),
        ];
        for (text, words) in cases {
            let error = read(Path::new("rgrid.toml"), text).expect_err(text).to_string();
            assert!(error.starts_with("rgrid.toml, ") && error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_nearest_file_counts_up_to_the_projects_root() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().canonicalize()?;
        fs::create_dir_all(root.join("a/b/c"))?;
        fs::write(root.join(NAME), "")?;
        assert_eq!(find(&root.join("a/b/c"), None), Some(root.join(NAME)));
        assert_eq!(find(&root.join("a/b/c"), Some(&root.join("a"))), None);
        fs::create_dir(root.join("a/.git"))?;
        assert_eq!(find(&root.join("a/b/c"), None), None);
        fs::write(root.join("a").join(NAME), "")?;
        assert_eq!(find(&root.join("a/b/c"), None), Some(root.join("a").join(NAME)));
        Ok(())
    }
}
