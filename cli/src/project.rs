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

use crate::{failure::usage, text};

/// What the file is called.
const NAME: &str = "rgrid.toml";
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

impl Project {
    /// The project of the current directory: the nearest `rgrid.toml` in it or above, up to the project's root (`.git`), the
    /// user's home, or the root of all.
    ///
    /// # Errors
    /// A usage error where the file cannot be meant, or belongs to somebody else.
    pub(crate) fn of_here() -> anyhow::Result<Self> {
        let cwd = env::current_dir().context("cannot tell which directory this is; change to one that exists")?;
        let home = env::home_dir();
        match find(&cwd, home.as_deref()) {
            Some(path) => load(&path),
            None => Ok(Self::default()),
        }
    }
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

fn load(path: &Path) -> anyhow::Result<Project> {
    let shown = path.display();
    let meta = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
    // As git has it: in a directory that all may write to, somebody else's file must not choose where our files go.
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        return Err(usage(format!(
            "{shown} belongs to another user ({}), and is not trusted; make it yours (chown), or leave it out: --no-defaults, and --url for the grid",
            meta.uid()
        )));
    }
    let text = text::read(path, MAX_BYTES).map_err(|error| usage(error.to_string()))?;
    read(path, &text)
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
            ("key-file", DeValue::String(file)) => project.key_file = Some(reader.beside(file)),
            ("run", DeValue::Table(table)) => project.run = reader.options(table)?,
            (name, _) => {
                let sentence = format!("`{name}` cannot stand here; there are `url = \"…\"`, `key-file = \"…\"` and the table `[run]`");
                return Err(reader.wrong(&span, &sentence));
            }
        }
    }
    Ok(project)
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
                let value = if matches!(name, "env-file" | "requirements") {
                    self.beside(&value).display().to_string()
                } else {
                    value
                };
                format!("--{name}={value}")
            };
            let unfit = || self.wrong(&span, &format!("`{name}` is text, a number, true, or a list of these"));
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
        let project = read(Path::new("/p/rgrid.toml"), text).expect("it is well-formed");
        assert_eq!(project.url.map(String::from).as_deref(), Some("http://grid:8080/"));
        assert_eq!(project.key_file.as_deref(), Some(Path::new("/p/grid.key")));
        let mut said: Vec<(&str, String)> = project.run.iter().map(|one| (one.from.as_str(), one.words.join(" "))).collect();
        said.sort_unstable();
        let expected = [
            ("/p/rgrid.toml, line 11", "--env=MODE=fast one"),
            ("/p/rgrid.toml, line 5", "--cpu=0.5"),
            ("/p/rgrid.toml, line 6", "--detach"),
            ("/p/rgrid.toml, line 7", ""),
            ("/p/rgrid.toml, line 8", "--retry-on=75 --retry-on=76"),
            ("/p/rgrid.toml, line 9", "--env-file=/p/a.env"),
        ];
        assert_eq!(said, expected.map(|(from, words)| (from, words.to_owned())));
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_its_line() {
        let cases = [
            ("\n\nurl = 5", "line 3: `url` cannot stand here"),
            ("[run]\ncpu = 2\ncpu = 3\n", "line 3"),
            ("[run]\ncpu =\n", "line 2"),
            ("queue = \"x\"", "line 1: `queue` cannot stand here; there are"),
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
