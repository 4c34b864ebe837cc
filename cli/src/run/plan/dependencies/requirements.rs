//! A requirements.txt and what it names: other lists (`-r`, `-c`), and archives of this machine. All of it goes along, flat, with the
//! lines that name it changed accordingly. Options get a line each, since uv takes no more; every other line stays as it is.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use bus::spec::{RelPath, dependencies::Kind};

use super::{
    Content, LONGEST,
    lines::{Line, Opt, Said, joined, line},
    local::{is_archive, is_remote, local, path_of},
    wrong_file,
};
use crate::{
    failure::usage,
    run::{
        plan::input::{parsed, unreadable},
        scan::{is_named_as_secret, is_of_project},
    },
    text,
};

/// What stands for the directory of the installer in a file: URL, which must be absolute.
pub(crate) const THERE: &str = "${RGRID_PACKAGES_DIR}";

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// How many packages are named.
    pub(crate) packages: u32,
    /// What goes along: requirements.txt, and what it names.
    pub(crate) files: Vec<(RelPath, Content)>,
    /// Where an index is named, if one is: `requirements.txt, line 1`.
    pub(crate) index: Option<String>,
}

/// A requirement that stands elsewhere than in a requirements file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it stands: `pyproject.toml, line 7`.
    pub(crate) at: String,
    /// What it says.
    pub(crate) text: String,
}

/// Reads a file.
///
/// # Errors
/// A usage error that names the line where something cannot be sent.
pub(crate) fn read(path: &Path, shown: &str, cwd: &Path) -> anyhow::Result<Read> {
    let mut reader = Reader::new(cwd);
    reader.file(path, shown, Kind::Pip.declaration(), true)?;
    Ok(reader.read)
}

/// Reads requirements that stand elsewhere, as if they stood in a file in this directory; `limits` say which versions are allowed of
/// what is installed anyway.
///
/// # Errors
/// As [`read`].
pub(crate) fn of_entries(entries: &[Entry], limits: &[Entry], dir: &Path, cwd: &Path) -> anyhow::Result<Read> {
    let mut reader = Reader::new(cwd);
    let mut text = String::new();
    if !limits.is_empty() {
        let name = "list-0.txt";
        reader.called.insert(PathBuf::new(), name.to_owned());
        let limits = reader.entries(limits, dir, false)?;
        reader.read.files.push((parsed(name)?, Content::Made(limits.into_bytes())));
        text = format!("--constraint {name}\n");
    }
    text += &reader.entries(entries, dir, true)?;
    reader
        .read
        .files
        .push((parsed(Kind::Pip.declaration())?, Content::Made(text.into_bytes())));
    Ok(reader.read)
}

/// Has what goes along of this machine noted, and called by one name each.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    cwd: &'a Path,
    pub(crate) read: Read,
    /// What files here are called there.
    called: HashMap<PathBuf, String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(cwd: &'a Path) -> Self {
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
        for group in joined(text) {
            let at = format!("{shown}, line {}", group.number);
            let new = match line(&group.text).map_err(|wrong| wrong_line(&at, &wrong))? {
                // What we write is UTF-8, whatever the file said of itself.
                Line::Empty if group.raw.contains("coding") => String::new(),
                Line::Empty => group.raw,
                Line::Options(options) => self.options(options, &at, dir, counts)?,
                Line::Requirement(requirement) => {
                    let own = self.requirement(&requirement, &at, dir, counts)?;
                    match own {
                        Some(own) => own + &group.text[requirement.len()..],
                        None if group.count == 1 => group.raw,
                        None => group.text,
                    }
                }
            };
            changed.push_str(&new);
            // Lines keep their numbers, which installers name.
            changed.push_str(&"\n".repeat(group.count));
        }
        self.read.files.push((parsed(name)?, Content::Made(changed.into_bytes())));
        Ok(())
    }

    /// Requirements alone, as lines.
    fn entries(&mut self, entries: &[Entry], dir: &Path, counts: bool) -> anyhow::Result<String> {
        let mut text = String::new();
        for entry in entries {
            text += &self.entry(entry, dir, counts)?;
            text.push('\n');
        }
        Ok(text)
    }

    /// A requirement alone, as it is to be there.
    pub(crate) fn entry(&mut self, Entry { at, text }: &Entry, dir: &Path, counts: bool) -> anyhow::Result<String> {
        let one = joined(text);
        let said = one.first().map(|one| line(&one.text));
        match (said, one.len()) {
            (Some(Ok(Line::Requirement(requirement))), 1) if requirement == text.trim() => {
                if local(&requirement).is_some_and(|local| local.before.is_empty()) {
                    return Err(wrong_line(
                        at,
                        &format!("names the path `{requirement}` without a name; write `NAME @ file:///…`"),
                    ));
                }
                Ok(self.requirement(&requirement, at, dir, counts)?.unwrap_or(requirement))
            }
            _ => Err(wrong_line(
                at,
                &format!("names `{}`, which is not a requirement (PEP 508); correct it", text.escape_debug()),
            )),
        }
    }

    /// What a requirement is to be there; nothing where it stays as it is.
    fn requirement(&mut self, requirement: &str, at: &str, dir: &Path, counts: bool) -> anyhow::Result<Option<String>> {
        self.read.packages += u32::from(counts);
        let Some(local) = local(requirement) else { return Ok(None) };
        let there = self.archive(&local.path, at, dir)?;
        Ok(Some(if local.before.is_empty() {
            format!("./{there}{}", local.after)
        } else {
            format!("{}file://{THERE}/{there}{}", local.before, local.after)
        }))
    }

    /// Has an archive sent along that is named in a file in this directory, and tells where it will be.
    pub(crate) fn archive(&mut self, path: &str, at: &str, dir: &Path) -> anyhow::Result<String> {
        let file = self.find(path, at, dir)?.ok_or_else(|| {
            usage(format!(
                "{at} names `{path}`, which is not there; correct it, or leave the packages out with --no-requirements"
            ))
        })?;
        if file.is_dir() {
            return Err(wrong_line(
                at,
                &format!(
                    "names the directory `{path}`, which cannot be sent; build a wheel of it (`pip wheel --no-deps {path}`) and name that"
                ),
            ));
        }
        if !is_archive(&file.to_string_lossy()) {
            return Err(wrong_line(
                at,
                &format!("names `{path}`, which is not an archive of a package; name a wheel"),
            ));
        }
        self.send(&file)
    }

    fn options(&mut self, options: Vec<Said>, at: &str, dir: &Path, counts: bool) -> anyhow::Result<String> {
        let lines = options.into_iter().map(|said| self.option(&said, at, dir, counts));
        Ok(lines.collect::<anyhow::Result<Vec<_>>>()?.join("\n"))
    }

    fn option(&mut self, said: &Said, at: &str, dir: &Path, counts: bool) -> anyhow::Result<String> {
        let Said { option, name, value } = said;
        if matches!(option, Opt::IndexUrl | Opt::ExtraIndexUrl | Opt::NoIndex) {
            self.read.index.get_or_insert_with(|| at.to_owned());
        }
        let there = match option {
            Opt::NoIndex => return Ok((*name).to_owned()),
            Opt::Plain | Opt::OfRequirement if value.is_empty() => return Ok((*name).to_owned()),
            Opt::Plain | Opt::OfRequirement => shell_words::quote(value).into_owned(),
            Opt::Editable => return Err(editable(at, value)),
            Opt::List if is_remote(value) => {
                // Nobody knows how many.
                self.read.packages += u32::from(counts);
                value.clone()
            }
            Opt::Constraints | Opt::FindLinks | Opt::IndexUrl | Opt::ExtraIndexUrl if is_remote(value) => value.clone(),
            Opt::IndexUrl | Opt::ExtraIndexUrl => {
                return Err(wrong_line(
                    at,
                    &format!("names the index `{value}` of this machine, which cannot be sent; name its archives with --find-links DIR"),
                ));
            }
            Opt::List | Opt::Constraints => self.list(value, at, dir, counts && matches!(option, Opt::List))?,
            Opt::FindLinks => format!("./{}", self.links(value, at, dir)?),
        };
        Ok(format!("{name} {there}"))
    }

    /// Has another list sent along, once, and tells its name.
    fn list(&mut self, value: &str, at: &str, dir: &Path, counts: bool) -> anyhow::Result<String> {
        let path = path_of(value);
        let file = self.find(&path, at, dir)?.filter(|file| file.is_file());
        let file = file.ok_or_else(|| wrong_line(at, &format!("names `{path}`, which is not there; correct the path")))?;
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        if is_named_as_secret(&real) {
            return Err(wrong_line(
                at,
                &format!("names `{path}`, which looks like a secret and no list of packages; give the list another name"),
            ));
        }
        if let Some(name) = self.called.get(&real) {
            return Ok(name.clone());
        }
        let name = format!("list-{}.txt", self.called.len());
        self.file(&file, &path, &name, counts)?;
        Ok(name)
    }

    /// Has the archives of a directory sent along, once, and tells where they will be.
    pub(crate) fn links(&mut self, value: &str, at: &str, dir: &Path) -> anyhow::Result<String> {
        let path = path_of(value);
        let links = self.find(&path, at, dir)?.filter(|links| links.is_dir());
        let links = links.ok_or_else(|| wrong_line(at, &format!("names `{path}`, which is not a directory here; correct the path")))?;
        let real = links.canonicalize().unwrap_or(links);
        if let Some(place) = self.called.get(&real) {
            return Ok(place.clone());
        }
        let entries = fs::read_dir(&real).map_err(|error| unreadable(&real, &error))?;
        let mut archives = Vec::new();
        for entry in entries {
            let file = entry.map_err(|error| unreadable(&real, &error))?.path();
            if file.is_file() && is_archive(&file.to_string_lossy()) {
                self.is_own(&file, &file.display().to_string(), at, dir)?;
                archives.push(file);
            }
        }
        archives.sort();
        let place = format!("links-{}", self.called.len());
        self.called.insert(real, place.clone());
        for file in archives {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.read.files.push((parsed(&format!("{place}/{name}"))?, Content::Of(file)));
        }
        Ok(place)
    }

    /// A path as it is meant in a file: from the file's directory, or from the current one, as the installers have it.
    fn find(&self, path: &str, at: &str, dir: &Path) -> anyhow::Result<Option<PathBuf>> {
        let found = [dir.join(path), self.cwd.join(path)].into_iter().find(|file| file.exists());
        if let Some(file) = &found {
            self.is_own(file, path, at, dir)?;
        }
        Ok(found)
    }

    /// Rejects what lies outside the project of the file that names it, or of the current directory: a stranger's list would send it.
    fn is_own(&self, file: &Path, named: &str, at: &str, dir: &Path) -> anyhow::Result<()> {
        if is_of_project(file, &[dir, self.cwd]) {
            return Ok(());
        }
        Err(wrong_line(
            at,
            &format!(
                "names `{named}`, which lies outside the project; copy it into the project, or name your own list with --requirements FILE"
            ),
        ))
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

/// What is said of a line that cannot be honoured.
pub(crate) fn wrong_line(at: &str, wrong: &str) -> anyhow::Error {
    usage(format!("{at} {wrong}, or leave the packages out with --no-requirements"))
}

fn editable(at: &str, value: &str) -> anyhow::Error {
    usage(format!(
        "{at} installs `{value}` so that it can be edited (-e), which cannot be sent; build a wheel of it and name that, or a URL without -e"
    ))
}

#[cfg(test)]
#[path = "requirements_tests.rs"]
mod tests;
