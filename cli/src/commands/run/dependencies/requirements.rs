//! A requirements.txt and what it names: other lists (`-r`, `-c`), and archives of this machine. All of it goes along, flat, with the
//! lines that name it changed accordingly; every other line stays as it is.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use bus::{dependencies::Kind, spec::RelPath};

use super::{Content, LONGEST, wrong_file};
use crate::{
    commands::run::plan::{parsed, unreadable},
    failure::usage,
    text,
};

/// What an archive's name ends with.
const ARCHIVES: [&str; 6] = [".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz"];
/// What stands for the directory of the installer in a file: URL, which must be absolute.
const THERE: &str = "${RGRID_PACKAGES_DIR}";

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// How many packages are named.
    pub(super) packages: u32,
    /// What goes along: requirements.txt, and what it names.
    pub(super) files: Vec<(RelPath, Content)>,
}

/// Reads a file.
///
/// # Errors
/// A usage error that names the line where something cannot be sent.
pub(super) fn read(path: &Path, shown: &str, cwd: &Path) -> anyhow::Result<Read> {
    let mut reader = Reader::new(cwd);
    reader.file(path, shown, Kind::Pip.declaration(), true)?;
    Ok(reader.read)
}

/// Reads requirements that stand elsewhere, as if they stood in a file in this directory.
///
/// # Errors
/// As [`read`].
pub(super) fn of_text(lines: &[String], shown: &str, dir: &Path, cwd: &Path) -> anyhow::Result<Read> {
    let mut reader = Reader::new(cwd);
    let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    reader.text(&text, shown, dir, Kind::Pip.declaration(), true)?;
    Ok(reader.read)
}

struct Reader<'a> {
    cwd: &'a Path,
    read: Read,
    /// What files here are called there.
    called: HashMap<PathBuf, String>,
}

impl<'a> Reader<'a> {
    fn new(cwd: &'a Path) -> Self {
        Self {
            cwd,
            read: Read::default(),
            called: HashMap::new(),
        }
    }

    fn file(&mut self, path: &Path, shown: &str, name: &str, counts: bool) -> anyhow::Result<()> {
        let text = text::read(path, LONGEST).map_err(|error| wrong_file(&error))?;
        // Before what it names, which may name it.
        self.called
            .insert(path.canonicalize().unwrap_or_else(|_| path.to_owned()), name.to_owned());
        self.text(&text, shown, path.parent().unwrap_or(self.cwd), name, counts)
    }

    fn text(&mut self, text: &str, shown: &str, dir: &Path, name: &str, counts: bool) -> anyhow::Result<()> {
        let mut changed = String::new();
        let mut continued = false;
        for (index, line) in text.lines().enumerate() {
            let at = format!("{shown}, line {}", index + 1);
            let new = if continued { None } else { self.line(line, &at, dir, counts)? };
            changed.push_str(new.as_deref().unwrap_or(line));
            changed.push('\n');
            continued = line.ends_with('\\');
        }
        self.read.files.push((parsed(name)?, Content::Made(changed.into_bytes())));
        Ok(())
    }

    /// What a line is to be there; nothing where it stays as it is.
    fn line(&mut self, line: &str, at: &str, dir: &Path, counts: bool) -> anyhow::Result<Option<String>> {
        let meant = line.split(" #").next().unwrap_or(line).trim();
        if meant.is_empty() || meant.starts_with('#') {
            return Ok(None);
        }
        if let Some((option, value)) = option(meant) {
            return self.option(option, value, at, dir, counts);
        }
        if meant.starts_with('-') {
            return Ok(None);
        }
        self.read.packages += u32::from(counts);
        let Some((before, path, after)) = local(meant) else {
            return Ok(None);
        };
        let file = self.find(path, dir).ok_or_else(|| {
            usage(format!(
                "{at} names `{path}`, which is not there; correct it, or leave the packages out with --no-requirements"
            ))
        })?;
        if file.is_dir() {
            return Err(usage(format!(
                "{at} names the directory `{path}`, which cannot be sent; build a wheel of it (`pip wheel --no-deps {path}`) and name that"
            )));
        }
        let there = self.send(&file)?;
        Ok(Some(if before.is_empty() {
            format!("./{there}{after}")
        } else {
            format!("{before}file://{THERE}/{there}{after}")
        }))
    }

    fn option(&mut self, option: Opt, value: &str, at: &str, dir: &Path, counts: bool) -> anyhow::Result<Option<String>> {
        if value.contains("://") && !value.starts_with("file:") || value.contains("${") {
            return if matches!(option, Opt::Editable) {
                Err(editable(at, value))
            } else {
                Ok(None)
            };
        }
        let path = value.strip_prefix("file://").unwrap_or(value);
        let absent = || usage(format!("{at} names `{path}`, which is not there; correct the path"));
        match option {
            Opt::Editable => Err(editable(at, value)),
            Opt::List | Opt::Constraints => {
                let file = self.find(path, dir).filter(|file| file.is_file()).ok_or_else(absent)?;
                let real = file.canonicalize().unwrap_or_else(|_| file.clone());
                let word = if matches!(option, Opt::List) { "-r" } else { "-c" };
                let name = match self.called.get(&real) {
                    Some(name) => name.clone(),
                    None => {
                        let name = format!("list-{}.txt", self.called.len());
                        self.file(&file, path, &name, counts && matches!(option, Opt::List))?;
                        name
                    }
                };
                Ok(Some(format!("{word} {name}")))
            }
            Opt::Links => {
                let links = self.find(path, dir).filter(|links| links.is_dir()).ok_or_else(absent)?;
                let entries = fs::read_dir(&links).map_err(|error| unreadable(&links, &error))?;
                let mut archives: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
                archives.retain(|file| file.is_file() && is_archive(&file.to_string_lossy()));
                archives.sort();
                let place = format!("links-{}", self.called.len());
                self.called.insert(links, place.clone());
                for file in archives {
                    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    self.read.files.push((parsed(&format!("{place}/{name}"))?, Content::Of(file)));
                }
                Ok(Some(format!("--find-links ./{place}")))
            }
        }
    }

    /// A path as it is meant in a file: from the file's directory, or from the current one, as the installers have it.
    fn find(&self, path: &str, dir: &Path) -> Option<PathBuf> {
        [dir.join(path), self.cwd.join(path)].into_iter().find(|file| file.exists())
    }

    /// Has an archive go along under its name, which says what is in it, and tells where it will be.
    fn send(&mut self, file: &Path) -> anyhow::Result<String> {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        if let Some(called) = self.called.get(&real) {
            return Ok(called.clone());
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let called = format!("archive-{}/{name}", self.called.len());
        self.read.files.push((parsed(&called)?, Content::Of(real.clone())));
        self.called.insert(real, called.clone());
        Ok(called)
    }
}

fn editable(at: &str, value: &str) -> anyhow::Error {
    usage(format!(
        "{at} installs `{value}` so that it can be edited (-e), which cannot be sent; build a wheel of it and name that, or a URL without -e"
    ))
}

/// Options that name something of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opt {
    List,
    Constraints,
    Editable,
    Links,
}

/// An option that names something, and what it names: `-r x`, `-rx`, `--requirement x`, `--requirement=x`.
fn option(line: &str) -> Option<(Opt, &str)> {
    const OPTIONS: [(&str, &str, Opt); 4] = [
        ("-r", "--requirement", Opt::List),
        ("-c", "--constraint", Opt::Constraints),
        ("-e", "--editable", Opt::Editable),
        ("-f", "--find-links", Opt::Links),
    ];
    OPTIONS.iter().find_map(|(short, long, option)| {
        let rest = match line.strip_prefix(long) {
            Some(rest) => rest.strip_prefix(['=', ' ', '\t'])?,
            None if line.starts_with("--") => return None,
            None => line.strip_prefix(short)?,
        };
        Some((*option, rest.trim().trim_matches(['"', '\''])))
    })
}

/// The archive or directory of this machine that a requirement names: what stands before it, its path, and what follows it
/// (extras, markers, hashes).
fn local(requirement: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = match requirement.split_once("file://") {
        Some((before, rest)) if before.trim_end().ends_with('@') => (before, rest),
        Some(("", rest)) => ("", rest),
        Some(_) => return None,
        None => ("", requirement),
    };
    let end = rest.find([' ', '\t', ';', '[', '\\']).unwrap_or(rest.len());
    let (path, after) = rest.split_at(end);
    let is_path = path.starts_with('.') || path.contains('/') || is_archive(path);
    let elsewhere = path.contains("://") || path.contains("${") || after.trim_start().starts_with('@') || path.contains('@');
    let found = is_path && (!before.is_empty() || !elsewhere) && !path.contains("${");
    found.then_some((before, path, after))
}

fn is_archive(name: &str) -> bool {
    ARCHIVES.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
#[path = "requirements_tests.rs"]
mod tests;
